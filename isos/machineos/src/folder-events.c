/*
 * folder-events UID: lets programs of the guest hear of changes that the host made in a shared folder.
 *
 * The kernel's inotify tells what is done in this machine only. So each change is done here once more, as the user UID:
 * the server of the folder knows that user's calls for repetitions, and answers them without changing anything.
 *
 * Standard input has records, each ended by a zero byte: a letter and the path of a file in the machine.
 *
 *     M path          it was modified
 *     C inode path    it was made; inode is its number now
 *     K inode path    a folder was made
 *     D path          it was removed
 *     R path          a folder was removed
 *     (nothing)       ask for an answer: "." on standard output
 *
 * The call's group says what the server shall answer for a name that isn't there any more.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/fsuid.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

/* Groups, counted from UID: see machine/folders/replay.py. */
enum { FOLDERS, NOW, FILE_BEFORE, FOLDER_BEFORE };

static gid_t first;
/* The folder of the last record, which the next one often has, too. */
static char above[PATH_MAX];
static int folder = -1;

/* The file system of a shared folder, once it is known. */
static dev_t shared;

static void see(int what)
{
    setfsgid(first + (gid_t)what);
}

static void leave(void)
{
    if (folder >= 0)
        close(folder);
    folder = -1;
}

/* Whether a line of /proc/self/mountinfo is about that file system, and our server has it. */
static bool is_served(const char *line, dev_t device)
{
    unsigned int high, low;
    const char *kind = strstr(line, " - ");

    return kind && sscanf(line, "%*d %*d %u:%u", &high, &low) == 2 && makedev(high, low) == device &&
           (strncmp(kind, " - nfs 10.0.2.100:", 18) == 0 || strncmp(kind, " - nfs 127.0.0.1:", 17) == 0);
}

/* Everywhere else a repetition would be a change: in a folder of this machine's own, where nothing is mounted. */
static bool is_shared(void)
{
    struct stat found;
    FILE *mounts;
    char *line = NULL;
    size_t room = 0;

    if (fstat(folder, &found) != 0)
        return false;
    if (found.st_dev != shared && (mounts = fopen("/proc/self/mountinfo", "re"))) {
        while (getline(&line, &room, mounts) > 0)
            if (is_served(line, found.st_dev))
                shared = found.st_dev;
        fclose(mounts);
        free(line);
    }
    return found.st_dev == shared;
}

/* Open the folder that a file lies in, and return the file's name; NULL where that can't be done. */
static const char *enter(char *path)
{
    struct open_how how = {.flags = O_PATH | O_DIRECTORY | O_CLOEXEC, .resolve = RESOLVE_NO_SYMLINKS};
    char *slash = strrchr(path, '/');

    if (!slash || slash == path || !slash[1] || strlen(path) >= sizeof above)
        return NULL;
    *slash = 0;
    if (folder < 0 || strcmp(above, path) != 0) {
        leave();
        see(FOLDERS);
        folder = (int)syscall(SYS_openat2, AT_FDCWD, path, &how, sizeof how);
        memcpy(above, path, strlen(path) + 1);
        if (folder >= 0 && !is_shared())
            leave();
    }
    return folder < 0 ? NULL : slash + 1;
}

static bool ask(const char *name, struct statx *found, int how)
{
    return statx(folder, name, AT_SYMLINK_NOFOLLOW | how, STATX_BASIC_STATS, found) == 0;
}

/* Opened and closed, as by a program that writes: that makes the kernel ask for the file's contents anew, too. */
static int modify(const char *name)
{
    const struct timespec now[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_nsec = UTIME_NOW}};
    struct statx found;
    int file, done;

    see(NOW);
    if (!ask(name, &found, AT_STATX_DONT_SYNC)) /* the kind of a file never changes */
        return -1;
    if (!S_ISREG(found.stx_mode))
        return 0;
    file = openat(folder, name, O_WRONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    if (file < 0) /* a program that runs can't be opened to be written */
        return utimensat(folder, name, now, AT_SYMLINK_NOFOLLOW);
    done = futimens(file, now);
    close(file);
    return done;
}

static int make(const char *name, bool is_folder)
{
    see(is_folder ? FOLDER_BEFORE : FILE_BEFORE);
    return is_folder ? mkdirat(folder, name, 0777) : mknodat(folder, name, S_IFREG | 0666, 0);
}

static int take(const char *name, bool is_folder)
{
    see(is_folder ? FOLDER_BEFORE : FILE_BEFORE);
    return unlinkat(folder, name, is_folder ? AT_REMOVEDIR : 0);
}

/* Whether the kernel has another file by that name than the host. The server says of one that is gone that it changed at
 * the very beginning of time; its number may be the new one's, too. */
static bool is_former(const struct statx *found, uint64_t inode)
{
    return found->stx_ino != inode || found->stx_ctime.tv_sec == 0;
}

/* What had that name before is removed first; who has seen the new one already hears that it was modified. */
static int create(const char *name, bool is_folder, uint64_t inode)
{
    struct statx found;

    if (make(name, is_folder) == 0)
        return 0;
    if (errno != EEXIST || !ask(name, &found, AT_STATX_FORCE_SYNC))
        return -1;
    if (is_former(&found, inode))
        return take(name, S_ISDIR(found.stx_mode)) < 0 ? -1 : make(name, is_folder);
    return is_folder ? 0 : modify(name);
}

/* Where the kernel knows that the name is gone, it must come back for a moment to be removed. */
static int delete(const char *name, bool is_folder)
{
    if (take(name, is_folder) == 0)
        return 0;
    if (errno == EISDIR || errno == ENOTDIR)
        return take(name, !is_folder);
    return errno == ENOENT && make(name, is_folder) == 0 ? take(name, is_folder) : -1;
}

static int repeat(char kind, uint64_t inode, const char *name)
{
    switch (kind) {
    case 'M':
        return modify(name);
    case 'C':
        return create(name, false, inode);
    case 'K':
        return create(name, true, inode);
    case 'D':
        return delete(name, false);
    case 'R':
        return delete(name, true);
    }
    errno = EINVAL;
    return -1;
}

static void handle(char *record)
{
    char kind = record[0], path[PATH_MAX], *rest = record + 1;
    uint64_t inode = 0;

    if (kind == 'C' || kind == 'K')
        inode = strtoull(rest, &rest, 10);
    if (*rest++ != ' ' || strlen(rest) >= sizeof path)
        return;
    for (int again = 0; again < 2; again++) {
        const char *name = (strcpy(path, rest), enter(path));

        if (!name || repeat(kind, inode, name) == 0 || errno != ESTALE)
            break;
        leave(); /* the folder is another one by now */
    }
    if (kind == 'K' || kind == 'R')
        leave();
}

/* After a suspend the connection that started the one before this one is gone, and nobody has told it. */
static void end_predecessor(void)
{
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET}, held = lock;
    int file = open("/run/machineos/folder-events", O_RDWR | O_CREAT | O_CLOEXEC, 0600);

    if (file < 0 || fcntl(file, F_SETLK, &lock) == 0)
        return;
    if (fcntl(file, F_GETLK, &held) == 0 && held.l_type != F_UNLCK)
        kill(held.l_pid, SIGKILL);
    fcntl(file, F_SETLKW, &lock);
}

int main(int argc, char **argv)
{
    char *record = NULL;
    size_t room = 0;

    if (argc != 2 || (first = (gid_t)strtoul(argv[1], NULL, 10)) == 0) {
        fputs("usage: folder-events UID\n", stderr);
        return 2;
    }
    end_predecessor();
    umask(0);
    setfsuid(first);
    if (setfsuid((uid_t)-1) != (int)first) {
        fputs("folder-events: only root can do this\n", stderr);
        return 1;
    }
    while (getdelim(&record, &room, 0, stdin) > 0) {
        if (*record) {
            handle(record);
            continue;
        }
        leave();
        if (write(STDOUT_FILENO, ".", 1) != 1)
            break;
    }
    free(record);
    return 0;
}
