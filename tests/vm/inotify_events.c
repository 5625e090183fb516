/* inotify_events PATH...: print what inotify tells of these files and folders, a line for each event: PATH NAME WHAT. */
#include <stdio.h>
#include <sys/inotify.h>
#include <unistd.h>

static const char *const WHAT[] = {"ACCESS", "MODIFY", "ATTRIB", "CLOSE_WRITE", "CLOSE_NOWRITE", "OPEN",
                                   "MOVED_FROM", "MOVED_TO", "CREATE", "DELETE", "DELETE_SELF", "MOVE_SELF"};
static const unsigned int WANTED = IN_MODIFY | IN_CLOSE_WRITE | IN_MOVE | IN_CREATE | IN_DELETE | IN_DELETE_SELF;

int main(int argc, char **argv)
{
    char buffer[1 << 16] __attribute__((aligned(8)));
    int events = inotify_init();
    ssize_t got;

    setvbuf(stdout, NULL, _IOLBF, 0);
    for (int number = 1; number < argc; number++)
        if (inotify_add_watch(events, argv[number], WANTED) != number) {
            perror(argv[number]);
            return 1;
        }
    puts("ready");
    while ((got = read(events, buffer, sizeof buffer)) > 0)
        for (char *at = buffer; at < buffer + got;) {
            const struct inotify_event *event = (const void *)at;

            for (unsigned int bit = 0; bit < sizeof WHAT / sizeof *WHAT; bit++)
                if (event->mask & 1u << bit && event->wd > 0)
                    printf("%s %s %s\n", argv[event->wd], event->len ? event->name : "-", WHAT[bit]);
            at += sizeof *event + event->len;
        }
    return 1;
}
