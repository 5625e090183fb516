/* posix: calls of POSIX in the current folder, with what each must return.
 *
 * usage: posix [ELSEWHERE]; ELSEWHERE is a folder on another file system. Prints each check that fails with its line,
 * then how many there were, and ends with 1 when one has failed. Where NFS or the shared folders differ from POSIX, the
 * check is for what docs/folders.md says.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

static int checks, failures;

static void check(bool good, int line, const char *what, const char *expected)
{
	int error = errno;

	checks++;
	if (good)
		return;
	failures++;
	printf("line %d: %s: expected %s; errno is %s\n", line, what, expected, strerrorname_np(error) ?: "0");
}

#define WORKS(call) (errno = 0, check((call) >= 0, __LINE__, #call, "success"))
#define FAILS(number, call) (errno = 0, check((call) < 0 && errno == (number), __LINE__, #call, #number))
#define HOLDS(condition) (errno = 0, check((condition), __LINE__, #condition, "true"))

static void make(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);

	if (fd < 0 || write(fd, text, strlen(text)) != (ssize_t)strlen(text) || close(fd)) {
		printf("can't make %s: %s\n", path, strerror(errno));
		exit(2);
	}
}

static struct stat of(const char *path)
{
	struct stat found;

	if (lstat(path, &found)) {
		memset(&found, 0, sizeof(found));
		found.st_size = -1;
	}
	return found;
}

static mode_t mode_of(const char *path)
{
	return of(path).st_mode & 07777;
}

static bool holds(const char *path, const char *text)
{
	char found[256] = "";
	int fd = open(path, O_RDONLY);
	ssize_t size = read(fd, found, sizeof(found) - 1);

	close(fd);
	return size == (ssize_t)strlen(text) && !memcmp(found, text, (size_t)size);
}

static const char *long_name(size_t length)
{
	static char name[PATH_MAX + 256];

	memset(name, 'n', length);
	name[length] = 0;
	return name;
}

/* Each kind of thing that a path can lead to. */
static void make_kinds(void)
{
	make("file", "text");
	mkdir("folder", 0755);
	mkdir("full", 0755);
	make("full/file", "inside");
	symlink("file", "link");
	symlink("folder", "link to folder");
	symlink("nowhere", "dangling");
	symlink("loop", "loop");
}

static void remove_kinds(void)
{
	unlink("file");
	rmdir("folder");
	unlink("full/file");
	rmdir("full");
	unlink("link");
	unlink("link to folder");
	unlink("dangling");
	unlink("loop");
}

static void test_open(void)
{
	char data[8];
	int fd;

	make_kinds();
	FAILS(EEXIST, open("file", O_CREAT | O_EXCL | O_RDWR, 0644));
	FAILS(EEXIST, open("folder", O_CREAT | O_EXCL | O_RDWR, 0644));
	FAILS(EEXIST, open("dangling", O_CREAT | O_EXCL | O_RDWR, 0644));
	FAILS(EEXIST, open("loop", O_CREAT | O_EXCL | O_RDWR, 0644));
	FAILS(ENOENT, open("nothing", O_RDONLY));
	FAILS(ENOENT, open("dangling", O_RDONLY));
	FAILS(ENOENT, open("", O_RDONLY));
	FAILS(ENOENT, open("nothing/file", O_CREAT | O_RDWR, 0644));
	FAILS(ENOTDIR, open("file/x", O_CREAT | O_RDWR, 0644));
	FAILS(ENOTDIR, open("file/", O_RDONLY));
	FAILS(ENOTDIR, open("file", O_RDONLY | O_DIRECTORY));
	FAILS(ELOOP, open("link", O_RDONLY | O_NOFOLLOW));
	FAILS(ELOOP, open("loop", O_RDONLY));
	FAILS(ELOOP, open("loop/x", O_RDONLY));
	FAILS(EISDIR, open("folder", O_WRONLY));
	FAILS(EISDIR, open("folder", O_RDWR));
	FAILS(EISDIR, open("folder", O_RDONLY | O_CREAT, 0644));
	FAILS(EISDIR, open("new/", O_RDWR | O_CREAT, 0644));
	FAILS(EOPNOTSUPP, open(".", O_TMPFILE | O_RDWR, 0644));
	WORKS(close(open("folder", O_RDONLY | O_DIRECTORY)));
	WORKS(close(open("link to folder/", O_RDONLY | O_DIRECTORY)));
	WORKS(close(open("link", O_PATH | O_NOFOLLOW)));
	WORKS(fd = open("dangling", O_CREAT | O_WRONLY, 0600)); /* makes what the link names */
	close(fd);
	HOLDS(of("nowhere").st_size == 0 && mode_of("nowhere") == 0600);
	unlink("nowhere");

	WORKS(fd = open("file", O_WRONLY | O_APPEND));
	WORKS(lseek(fd, 0, SEEK_SET));
	WORKS(write(fd, "+1", 2));
	HOLDS(lseek(fd, 0, SEEK_CUR) == 6);
	FAILS(EBADF, read(fd, data, 1));
	close(fd);
	HOLDS(holds("file", "text+1"));
	WORKS(fd = open("file", O_WRONLY | O_TRUNC));
	HOLDS(of("file").st_size == 0);
	close(fd);
	/* Who makes a file may write to it, whatever its mode forbids later. */
	WORKS(fd = open("secret", O_CREAT | O_EXCL | O_RDWR, 0));
	WORKS(write(fd, "kept", 4));
	WORKS(fsync(fd));
	HOLDS(pread(fd, data, 8, 0) == 4);
	close(fd);
	HOLDS(mode_of("secret") == 0 && of("secret").st_size == 4);
	unlink("secret");

	int folder = open("folder", O_RDONLY | O_DIRECTORY);
	WORKS(fd = openat(folder, "inside", O_CREAT | O_RDWR, 0644));
	close(fd);
	WORKS(unlinkat(folder, "inside", 0));
	WORKS(rmdir("folder"));
	FAILS(ENOENT, openat(folder, "inside", O_CREAT | O_RDWR, 0644));
	close(folder);
	remove_kinds();
}

static void test_modes(void)
{
	static const mode_t modes[] = {0, 0111, 0222, 0400, 0444, 0600, 0644, 0751, 0755, 0777};

	make_kinds();
	for (size_t i = 0; i < sizeof(modes) / sizeof(*modes); i++) {
		WORKS(chmod("file", modes[i]));
		HOLDS(mode_of("file") == modes[i]);
		WORKS(chmod("folder", modes[i] | 01000));
		HOLDS(mode_of("folder") == (modes[i] | 01000));
	}
	WORKS(chmod("link", 0640)); /* of what it leads to */
	HOLDS(mode_of("file") == 0640);
	WORKS(chmod("file", 06755)); /* a file gets no setuid or setgid bit */
	HOLDS(mode_of("file") == 0755);
	FAILS(ENOENT, chmod("nothing", 0644));
	FAILS(ENOENT, chmod("dangling", 0644));
	FAILS(ENOTDIR, chmod("file/x", 0644));
	FAILS(ELOOP, chmod("loop", 0644));
	FAILS(ENAMETOOLONG, chmod(long_name(256), 0644));

	mode_t old = umask(027);
	close(open("masked", O_CREAT | O_WRONLY, 0666));
	WORKS(mkdir("masked folder", 0777));
	umask(old);
	HOLDS(mode_of("masked") == 0640 && mode_of("masked folder") == 0750);
	unlink("masked");
	rmdir("masked folder");

	/* chown succeeds and changes nothing; who looks owns it. */
	WORKS(chown("file", 4321, 4321));
	WORKS(chown("file", (uid_t)-1, (gid_t)-1));
	WORKS(lchown("dangling", 4321, 4321));
	HOLDS(of("file").st_uid == geteuid() && of("file").st_gid == getegid());
	FAILS(ENOENT, chown("nothing", 0, 0));
	FAILS(ENOTDIR, chown("file/x", 0, 0));
	FAILS(ELOOP, chown("loop", 0, 0));
	WORKS(access("file", R_OK | W_OK | X_OK));
	FAILS(ENOENT, access("nothing", F_OK));
	remove_kinds();
}

static void test_link(void)
{
	make_kinds();
	WORKS(link("file", "second"));
	HOLDS(of("file").st_nlink == 2 && of("second").st_ino == of("file").st_ino);
	WORKS(truncate("second", 2));
	HOLDS(holds("file", "te"));
	WORKS(unlink("file"));
	HOLDS(of("second").st_nlink == 1 && holds("second", "te"));
	WORKS(rename("second", "file"));
	WORKS(link("dangling", "dangling 2")); /* the link itself */
	HOLDS(S_ISLNK(of("dangling 2").st_mode));
	unlink("dangling 2");
	FAILS(EEXIST, link("file", "folder"));
	FAILS(EEXIST, link("file", "dangling"));
	FAILS(EEXIST, link("file", "file"));
	FAILS(EPERM, link("folder", "second"));
	FAILS(ENOENT, link("nothing", "second"));
	FAILS(ENOENT, link("file", "nothing/second"));
	FAILS(ENOTDIR, link("file/x", "second"));
	FAILS(ENOTDIR, link("file", "link/second"));
	FAILS(ELOOP, link("loop/x", "second"));
	FAILS(ENAMETOOLONG, link("file", long_name(256)));
	WORKS(link("file", long_name(255)));
	WORKS(unlink(long_name(255)));
	remove_kinds();
}

static void test_symlink(void)
{
	char text[PATH_MAX + 1];

	make_kinds();
	HOLDS(readlink("link", text, sizeof(text)) == 4 && !memcmp(text, "file", 4));
	HOLDS(of("link").st_size == 4);
	FAILS(EINVAL, readlink("file", text, sizeof(text)));
	FAILS(ENOENT, symlink("", "new"));
	FAILS(EEXIST, symlink("x", "file"));
	FAILS(EEXIST, symlink("x", "dangling"));
	FAILS(ENOENT, symlink("x", "nothing/new"));
	FAILS(ENOTDIR, symlink("x", "file/new"));
	FAILS(ELOOP, symlink("x", "loop/new"));
	FAILS(ENAMETOOLONG, symlink("x", long_name(256)));
	FAILS(ENAMETOOLONG, symlink(long_name(PATH_MAX), "new"));
	WORKS(symlink(long_name(1000), "new"));
	HOLDS(readlink("new", text, sizeof(text)) == 1000);
	FAILS(ENAMETOOLONG, open("new", O_RDONLY));
	unlink("new");
	WORKS(symlink("\xff\n\\ \xc3\xbc", "new"));
	HOLDS(readlink("new", text, sizeof(text)) == 6 && !memcmp(text, "\xff\n\\ \xc3\xbc", 6));
	unlink("new");
	remove_kinds();
}

static void test_folders(void)
{
	make_kinds();
	FAILS(EEXIST, mkdir("folder", 0755));
	FAILS(EEXIST, mkdir("file", 0755));
	FAILS(EEXIST, mkdir("dangling", 0755));
	FAILS(EEXIST, mkdir(".", 0755));
	FAILS(ENOENT, mkdir("nothing/new", 0755));
	FAILS(ENOTDIR, mkdir("file/new", 0755));
	FAILS(ELOOP, mkdir("loop/new", 0755));
	FAILS(ENAMETOOLONG, mkdir(long_name(256), 0755));
	WORKS(mkdir(long_name(255), 0700));
	WORKS(rmdir(long_name(255)));
	WORKS(mkdir("slash/", 0755));
	WORKS(rmdir("slash/"));
	FAILS(ENOTEMPTY, rmdir("full"));
	FAILS(EINVAL, rmdir("folder/."));
	FAILS(ENOTEMPTY, rmdir("full/.."));
	FAILS(ENOTDIR, rmdir("file"));
	FAILS(ENOTDIR, rmdir("link to folder"));
	FAILS(ENOENT, rmdir("nothing"));
	FAILS(ENOTDIR, rmdir("file/x"));
	FAILS(ELOOP, rmdir("loop/x"));
	FAILS(EISDIR, unlink("folder"));
	FAILS(ENOENT, unlink("nothing"));
	FAILS(ENOTDIR, unlink("file/x"));
	FAILS(ENOTDIR, unlink("file/"));
	FAILS(ELOOP, unlink("loop/x"));
	FAILS(ENAMETOOLONG, unlink(long_name(256)));
	remove_kinds();
}

static void test_special(void)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = "socket"};
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	make_kinds();
	FAILS(EPERM, mkfifo("fifo", 0644));
	FAILS(EPERM, mknod("device", S_IFCHR | 0644, makedev(1, 3)));
	FAILS(EPERM, mknod("device", S_IFBLK | 0644, makedev(7, 0)));
	FAILS(EPERM, bind(fd, (struct sockaddr *)&address, sizeof(address)));
	FAILS(EEXIST, mkfifo("file", 0644));
	FAILS(ENOTDIR, mkfifo("file/x", 0644));
	FAILS(ENOENT, mkfifo("nothing/x", 0644));
	FAILS(EOPNOTSUPP, setxattr("file", "user.test", "1", 1, 0));
	close(fd);
	remove_kinds();
}

static void test_rename(const char *elsewhere)
{
	make_kinds();
	WORKS(rename("file", "renamed"));
	FAILS(ENOENT, access("file", F_OK));
	HOLDS(holds("renamed", "text"));
	make("file", "new");
	WORKS(rename("file", "renamed"));
	HOLDS(holds("renamed", "new") && of("file").st_size == -1);
	WORKS(rename("renamed", "folder/file"));
	WORKS(rename("folder/file", "file"));
	WORKS(rename("file", "file"));
	WORKS(link("file", "second"));
	WORKS(rename("file", "second")); /* the same file: nothing happens */
	HOLDS(of("file").st_nlink == 2);
	unlink("second");

	WORKS(rename("dangling", "moved"));
	HOLDS(S_ISLNK(of("moved").st_mode));
	WORKS(rename("moved", "dangling"));
	FAILS(EISDIR, rename("file", "folder"));
	FAILS(ENOTDIR, rename("folder", "file"));
	FAILS(ENOTDIR, rename("folder", "dangling"));
	FAILS(ENOTEMPTY, rename("folder", "full"));
	FAILS(EINVAL, rename("full", "full/below"));
	FAILS(EINVAL, rename("folder", "folder/below"));
	FAILS(ENOTEMPTY, rename("full/file", "full"));
	FAILS(ENOENT, rename("nothing", "new"));
	FAILS(ENOENT, rename("file", "nothing/new"));
	FAILS(ENOTDIR, rename("file", "link/new"));
	FAILS(ENOTDIR, rename("file/x", "new"));
	FAILS(ENOTDIR, rename("file", "new/"));
	FAILS(ELOOP, rename("file", "loop/new"));
	FAILS(EBUSY, rename(".", "new"));
	FAILS(ENAMETOOLONG, rename("file", long_name(256)));
	WORKS(rename("full", "folder")); /* over an empty one */
	HOLDS(holds("folder/file", "inside") && of("full").st_size == -1);
	WORKS(rename("folder", "full"));
	mkdir("folder", 0755);
	WORKS(rename("full", "folder/full")); /* into another, with what is in it */
	HOLDS(holds("folder/full/file", "inside"));
	WORKS(rename("folder/full", "full"));
	FAILS(EINVAL, renameat2(AT_FDCWD, "file", AT_FDCWD, "full", RENAME_EXCHANGE));
	FAILS(EINVAL, renameat2(AT_FDCWD, "file", AT_FDCWD, "new", RENAME_NOREPLACE));

	if (elsewhere) {
		char path[PATH_MAX];

		snprintf(path, sizeof(path), "%s/new", elsewhere);
		FAILS(EXDEV, rename("file", path));
		FAILS(EXDEV, link("file", path));
	}
	remove_kinds();
}

static void test_unlinked(void)
{
	char data[8] = "";
	int first, second;

	make("file", "text");
	WORKS(first = open("file", O_RDWR));
	WORKS(unlink("file"));
	FAILS(ENOENT, access("file", F_OK));
	make("file", "other");
	WORKS(pwrite(first, "T", 1, 0));
	WORKS(ftruncate(first, 3));
	WORKS(fsync(first));
	HOLDS(pread(first, data, 8, 0) == 3 && !memcmp(data, "Tex", 3));

	WORKS(second = open("file", O_RDWR)); /* and what another file is renamed over */
	make("over", "over");
	WORKS(rename("over", "file"));
	HOLDS(pread(second, data, 8, 0) == 5 && !memcmp(data, "other", 5));
	HOLDS(holds("file", "over"));
	close(first);
	close(second);
	unlink("file");
}

static void test_truncate(void)
{
	char data[16];
	int fd;

	make_kinds();
	WORKS(truncate("file", 10));
	HOLDS(holds("file", "text\0\0\0\0\0\0") || of("file").st_size == 10);
	WORKS(fd = open("file", O_RDWR));
	HOLDS(read(fd, data, 16) == 10 && !memcmp(data, "text\0\0\0\0\0\0", 10));
	WORKS(ftruncate(fd, 2));
	WORKS(ftruncate(fd, 6));
	HOLDS(pread(fd, data, 16, 0) == 6 && !memcmp(data, "te\0\0\0\0", 6));
	WORKS(pwrite(fd, "far", 3, 100000));
	HOLDS(of("file").st_size == 100003);
	HOLDS(pread(fd, data, 16, 50000) == 16 && !memcmp(data, (char[16]){0}, 16));
	FAILS(EINVAL, ftruncate(fd, -1));
	FAILS(EOPNOTSUPP, fallocate(fd, 0, 0, 4096));
	FAILS(EOPNOTSUPP, fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096));
	close(fd);
	WORKS(fd = open("file", O_RDONLY));
	FAILS(EINVAL, ftruncate(fd, 1));
	FAILS(EBADF, write(fd, "x", 1));
	close(fd);
	FAILS(EISDIR, truncate("folder", 0));
	FAILS(ENOENT, truncate("nothing", 0));
	FAILS(ENOENT, truncate("dangling", 0));
	FAILS(ENOTDIR, truncate("file/x", 0));
	FAILS(ELOOP, truncate("loop", 0));
	WORKS(truncate("file", 5LL << 30)); /* beyond 4 GiB */
	WORKS(fd = open("file", O_RDWR));
	WORKS(pwrite(fd, "end", 3, (5LL << 30) - 3));
	HOLDS(of("file").st_size == 5LL << 30);
	HOLDS(pread(fd, data, 16, (5LL << 30) - 4) == 4 && !memcmp(data, "\0end", 4));
	close(fd);
	HOLDS(of("file").st_blocks < 10000); /* holes take no room */
	remove_kinds();
}

static bool is_at(struct timespec found, time_t seconds, long nanoseconds)
{
	return found.tv_sec == seconds && found.tv_nsec == nanoseconds;
}

static void test_times(void)
{
	const struct timespec set[] = {{1234567890, 123456789}, {2000000001, 987654321}};
	const struct timespec half[] = {{0, UTIME_OMIT}, {1500000000, 1}};
	const struct timespec other[] = {{1400000000, 999999999}, {0, UTIME_OMIT}};
	const struct timespec none[] = {{0, UTIME_OMIT}, {0, UTIME_OMIT}};
	const struct timespec now[] = {{0, UTIME_NOW}, {0, UTIME_OMIT}};
	const struct timespec late[] = {{4000000000, 5}, {4294967294, 7}};
	const struct timespec wrong[] = {{0, 1000000000}, {0, 0}};
	struct stat before;
	int fd;

	make_kinds();
	WORKS(utimensat(AT_FDCWD, "file", set, 0));
	HOLDS(is_at(of("file").st_atim, 1234567890, 123456789) && is_at(of("file").st_mtim, 2000000001, 987654321));
	WORKS(utimensat(AT_FDCWD, "file", half, 0));
	HOLDS(is_at(of("file").st_atim, 1234567890, 123456789) && is_at(of("file").st_mtim, 1500000000, 1));
	WORKS(utimensat(AT_FDCWD, "file", other, 0));
	HOLDS(is_at(of("file").st_atim, 1400000000, 999999999) && is_at(of("file").st_mtim, 1500000000, 1));
	WORKS(utimensat(AT_FDCWD, "file", none, 0));
	HOLDS(is_at(of("file").st_atim, 1400000000, 999999999) && is_at(of("file").st_mtim, 1500000000, 1));
	WORKS(utimensat(AT_FDCWD, "file", now, 0));
	HOLDS(labs(of("file").st_atim.tv_sec - time(NULL)) < 60 && is_at(of("file").st_mtim, 1500000000, 1));
	WORKS(utimensat(AT_FDCWD, "file", late, 0)); /* after 2038 */
	HOLDS(is_at(of("file").st_atim, 4000000000, 5) && is_at(of("file").st_mtim, 4294967294, 7));
	WORKS(utimensat(AT_FDCWD, "file", NULL, 0));
	HOLDS(labs(of("file").st_mtim.tv_sec - time(NULL)) < 60);
	WORKS(utimensat(AT_FDCWD, "dangling", set, AT_SYMLINK_NOFOLLOW));
	HOLDS(is_at(of("dangling").st_mtim, 2000000001, 987654321));
	WORKS(utimensat(AT_FDCWD, "folder", set, 0));
	HOLDS(is_at(of("folder").st_mtim, 2000000001, 987654321));
	FAILS(EINVAL, utimensat(AT_FDCWD, "file", wrong, 0));
	FAILS(ENOENT, utimensat(AT_FDCWD, "nothing", set, 0));
	FAILS(ENOENT, utimensat(AT_FDCWD, "dangling", set, 0));
	FAILS(ENOTDIR, utimensat(AT_FDCWD, "file/x", set, 0));
	FAILS(ELOOP, utimensat(AT_FDCWD, "loop", set, 0));

	/* An open file keeps the times that were set while it had unwritten data. */
	WORKS(fd = open("file", O_RDWR));
	WORKS(write(fd, "data", 4));
	WORKS(futimens(fd, set));
	WORKS(close(fd));
	HOLDS(is_at(of("file").st_mtim, 2000000001, 987654321));
	/* Changes set the times of a file, and of the folder that a name comes to or goes from. */
	WORKS(truncate("file", 1));
	HOLDS(labs(of("file").st_mtim.tv_sec - time(NULL)) < 60);
	make("folder/new", "");
	HOLDS(labs(of("folder").st_mtim.tv_sec - time(NULL)) < 60);
	WORKS(utimensat(AT_FDCWD, "folder", set, 0));
	unlink("folder/new");
	HOLDS(labs(of("folder").st_mtim.tv_sec - time(NULL)) < 60);
	before = of("file");
	nanosleep(&(struct timespec){0, 20000000}, NULL);
	WORKS(chmod("file", 0600));
	HOLDS(of("file").st_ctim.tv_nsec != before.st_ctim.tv_nsec && of("file").st_mtim.tv_nsec == before.st_mtim.tv_nsec);
	remove_kinds();
}

/* Path lengths, and names with any bytes but / and 0. */
static void test_names(void)
{
	static const char *const odd[] = {"-rf", " ", "a\nb", "\\", "\xc3\xbc", "u\xcc\x88", "\xff\xfe", "*?[", "...", "\x01\x7f"};
	char path[PATH_MAX + 1] = "";
	size_t depth = 0;

	for (size_t i = 0; i < sizeof(odd) / sizeof(*odd); i++) {
		make(odd[i], odd[i]);
		HOLDS(holds(odd[i], odd[i]));
	}
	for (size_t i = 0; i < sizeof(odd) / sizeof(*odd); i++)
		WORKS(unlink(odd[i]));
	make("case", "lower");
	make("CASE", "upper");
	HOLDS(holds("case", "lower") && holds("CASE", "upper"));
	unlink("case");
	unlink("CASE");

	/* 15 folders of 255 bytes and a file fill a path of 4095 bytes. */
	for (; strlen(path) + 256 < PATH_MAX - 1; depth++) {
		strcat(strcat(path, long_name(255)), "/");
		WORKS(mkdir(path, 0755));
	}
	size_t length = strlen(path);
	memset(path + length, 'f', PATH_MAX - 1 - length);
	path[PATH_MAX - 1] = 0;
	WORKS(close(open(path, O_CREAT | O_RDWR, 0644)));
	WORKS(access(path, R_OK));
	WORKS(unlink(path));
	path[PATH_MAX - 1] = 'f';
	path[PATH_MAX] = 0;
	FAILS(ENAMETOOLONG, open(path, O_CREAT | O_RDWR, 0644));
	FAILS(ENAMETOOLONG, mkdir(path, 0755));
	FAILS(ENAMETOOLONG, rename("file", path));
	for (; depth > 0; depth--) {
		path[depth * 256 - 1] = 0;
		WORKS(rmdir(path));
	}
}

static int count(DIR *folder)
{
	int found = 0;

	while (readdir(folder))
		found++;
	return found;
}

static void test_listing(void)
{
	char name[sizeof(((struct dirent *)0)->d_name)];
	struct dirent *entry;

	mkdir("many", 0755);
	for (int i = 0; i < 150; i++) {
		snprintf(name, sizeof(name), "many/file %d", i);
		close(open(name, O_CREAT | O_WRONLY, 0644));
	}
	DIR *folder = opendir("many");
	HOLDS(count(folder) == 152);
	rewinddir(folder);
	for (int i = 0; i < 100; i++)
		readdir(folder);
	long place = telldir(folder);
	entry = readdir(folder);
	snprintf(name, sizeof(name), "%s", entry->d_name);
	count(folder);
	seekdir(folder, place);
	HOLDS((entry = readdir(folder)) && !strcmp(entry->d_name, name));
	HOLDS(entry && (entry->d_type == DT_REG || entry->d_type == DT_UNKNOWN));
	HOLDS(count(folder) == 152 - 101);
	/* Each file is removed as it is read, as rm -r does. */
	rewinddir(folder);
	while ((entry = readdir(folder)))
		if (entry->d_name[0] == 'f')
			WORKS(unlinkat(dirfd(folder), entry->d_name, 0));
	closedir(folder);
	WORKS(rmdir("many"));
}

static void test_memory(void)
{
	char data[8], *mapped;
	int fd;

	make("file", "");
	truncate("file", 10000);
	WORKS(fd = open("file", O_RDWR));
	mapped = mmap(NULL, 10000, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	HOLDS(mapped != MAP_FAILED);
	memcpy(mapped + 4094, "page", 4);
	HOLDS(pread(fd, data, 4, 4094) == 4 && !memcmp(data, "page", 4));
	WORKS(pwrite(fd, "write", 5, 9000));
	HOLDS(!memcmp(mapped + 9000, "write", 5));
	WORKS(msync(mapped, 10000, MS_SYNC));
	WORKS(munmap(mapped, 10000));
	close(fd);
	WORKS(fd = open("file", O_RDONLY | O_DIRECT));
	static char page[8192] __attribute__((aligned(4096)));
	HOLDS(pread(fd, page, 8192, 0) == 8192 && !memcmp(page + 4094, "page", 4));
	close(fd);
	unlink("file");
}

/* Two processes that append lose nothing, and locks keep them apart. */
static void test_processes(void)
{
	int fd, status = -1;
	struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};

	make("file", "");
	pid_t child = fork();
	fd = open("file", O_WRONLY | O_APPEND);
	for (int i = 0; i < 50; i++)
		if (write(fd, child ? "parent\n" : "child.\n", 7) != 7)
			_exit(1);
	close(fd);
	if (!child)
		_exit(0);
	waitpid(child, &status, 0);
	HOLDS(status == 0);
	HOLDS(of("file").st_size == 2 * 50 * 7);

	WORKS(fd = open("file", O_RDWR));
	WORKS(flock(fd, LOCK_EX));
	int second = open("file", O_RDWR);
	FAILS(EWOULDBLOCK, flock(second, LOCK_EX | LOCK_NB));
	WORKS(flock(fd, LOCK_UN));
	WORKS(flock(second, LOCK_EX | LOCK_NB));
	close(second);
	WORKS(fcntl(fd, F_SETLK, &lock));
	if (!(child = fork())) {
		second = open("file", O_RDWR);
		_exit(fcntl(second, F_SETLK, &lock) == 0 || (errno != EAGAIN && errno != EACCES));
	}
	waitpid(child, &status, 0);
	HOLDS(status == 0);
	close(fd);
	unlink("file");
}

int main(int argc, char **argv)
{
	setvbuf(stdout, NULL, _IOLBF, 0);
	umask(022);
	test_open();
	test_modes();
	test_link();
	test_symlink();
	test_folders();
	test_special();
	test_rename(argc > 1 ? argv[1] : NULL);
	test_unlinked();
	test_truncate();
	test_times();
	test_names();
	test_listing();
	test_memory();
	test_processes();
	printf("%d checks, %d failed\n", checks, failures);
	return failures > 0;
}
