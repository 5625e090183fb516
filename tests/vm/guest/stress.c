/* stress: random reads and writes of a file in every way, held against a copy of it in memory.
 *
 * usage: stress SECONDS [SEED]; it makes files in the current folder. The same seed does the same. Prints the seed, then
 * how many steps there were, and ends with 1 at the first difference, with the last steps.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* Bytes. */
enum { LARGEST = 3 << 19, AT_ONCE = 200000, PAGE = 4096 };
enum { TOLD = 25 };

static const char *const names[] = {"stress a", "stress b"};
static unsigned char model[LARGEST], data[LARGEST] __attribute__((aligned(PAGE)));
static size_t size;
static int file, named;
static bool is_unlinked;
static unsigned long steps;
static char told[TOLD][120];

static void tell(const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(told[steps++ % TOLD], sizeof(*told), format, arguments);
	va_end(arguments);
}

static void fail(const char *what)
{
	int error = errno;

	for (unsigned long i = steps > TOLD ? steps - TOLD : 0; i < steps; i++)
		printf("%lu: %s\n", i, told[i % TOLD]);
	printf("%s (errno: %s; %zu bytes)\n", what, strerror(error), size);
	exit(1);
}

static void must(bool good, const char *what)
{
	if (!good)
		fail(what);
}

static size_t below(size_t limit)
{
	return limit ? (size_t)random() % limit : 0;
}

/* A part of the file: small parts are as likely as large ones. */
static void choose(size_t limit, size_t *at, size_t *count)
{
	*at = below(limit + 1);
	*count = below(below(2) ? AT_ONCE : 3 * PAGE) + 1;
	if (*count > limit - *at)
		*count = limit - *at;
}

static void fill(unsigned char *place, size_t count)
{
	unsigned char value = (unsigned char)random();

	for (size_t i = 0; i < count; i++)
		place[i] = value++ ^ (unsigned char)(i >> 8);
}

static void compare(const unsigned char *found, size_t at, size_t count)
{
	for (size_t i = 0; i < count; i++)
		if (found[i] != model[at + i]) {
			tell("byte %zu is %02x and should be %02x", at + i, found[i], model[at + i]);
			fail("another byte");
		}
}

static void grow(size_t end)
{
	if (end > size) {
		memset(model + size, 0, end - size);
		size = end;
	}
}

static void step_read(void)
{
	size_t at, count;

	choose(size, &at, &count);
	tell("read %zu at %zu", count, at);
	must(pread(file, data, count, (off_t)at) == (ssize_t)count, "a short read");
	compare(data, at, count);
}

static void step_write(void)
{
	size_t at, count;

	choose(LARGEST, &at, &count);
	tell("write %zu at %zu", count, at);
	grow(at + count);
	fill(model + at, count);
	must(pwrite(file, model + at, count, (off_t)at) == (ssize_t)count, "a short write");
}

static void step_append(void)
{
	size_t count = below(3 * PAGE) + 1;
	int flags = fcntl(file, F_GETFL);

	if (size + count > LARGEST)
		return;
	tell("append %zu at %zu", count, size);
	fill(model + size, count);
	must(fcntl(file, F_SETFL, flags | O_APPEND) == 0, "O_APPEND");
	must(write(file, model + size, count) == (ssize_t)count, "a short write");
	must(fcntl(file, F_SETFL, flags) == 0, "no O_APPEND");
	size += count;
}

static void step_truncate(void)
{
	size_t end = below(4) ? below(LARGEST) : below(2 * PAGE);

	tell("truncate from %zu to %zu%s", size, end, is_unlinked ? "" : " by its name");
	must((is_unlinked ? ftruncate(file, (off_t)end) : truncate(names[named], (off_t)end)) == 0, "truncate");
	grow(end);
	size = end;
}

static void step_map(bool write)
{
	size_t at, count, begin;
	unsigned char *mapped;

	choose(size, &at, &count);
	if (!count)
		return;
	tell("%s the map of %zu at %zu", write ? "write to" : "read", count, at);
	begin = at / PAGE * PAGE;
	mapped = mmap(NULL, at + count - begin, PROT_READ | (write ? PROT_WRITE : 0), MAP_SHARED, file, (off_t)begin);
	must(mapped != MAP_FAILED, "mmap");
	compare(mapped, begin, at + count - begin);
	if (write) {
		fill(model + at, count);
		memcpy(mapped + at - begin, model + at, count);
		if (below(2))
			must(msync(mapped, at + count - begin, MS_SYNC) == 0, "msync");
	}
	must(munmap(mapped, at + count - begin) == 0, "munmap");
}

static void step_map_read(void)
{
	step_map(false);
}

static void step_map_write(void)
{
	step_map(true);
}

static int opened(int flags)
{
	return open(names[named], flags, 0644);
}

static void step_reopen(void)
{
	if (is_unlinked)
		return;
	tell("close and open");
	must(close(file) == 0, "close");
	file = opened(O_RDWR);
	must(file >= 0, "open");
}

static void step_direct(void)
{
	bool write = below(2);
	size_t at = below(LARGEST / PAGE - 8) * PAGE, count = (below(8) + 1) * PAGE;
	int direct = is_unlinked ? -1 : opened(O_RDWR | O_DIRECT);

	if (direct < 0)
		return;
	tell("O_DIRECT: %s %zu at %zu", write ? "write" : "read", count, at);
	if (write) {
		grow(at + count);
		fill(data, count);
		memcpy(model + at, data, count);
		must(pwrite(direct, data, count, (off_t)at) == (ssize_t)count, "a short write");
	} else {
		size_t there = at >= size ? 0 : size - at < count ? size - at : count;

		must(pread(direct, data, count, (off_t)at) == (ssize_t)there, "a short read");
		compare(data, at, there);
	}
	must(close(direct) == 0, "close");
}

static void step_hole(void)
{
	size_t at, count;

	choose(size, &at, &count);
	if (!count || fallocate(file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)at, (off_t)count)) {
		must(!count || errno == EOPNOTSUPP, "a hole");
		return;
	}
	tell("a hole of %zu at %zu", count, at);
	memset(model + at, 0, count);
}

/* What is read next comes from the host. */
static void step_forget(void)
{
	tell("fsync and forget");
	must(fsync(file) == 0, "fsync");
	must(posix_fadvise(file, 0, 0, POSIX_FADV_DONTNEED) == 0, "forget");
}

static void step_copy(void)
{
	size_t at, count;
	loff_t from, to;

	choose(size / 2, &at, &count);
	if (!count)
		return;
	from = (loff_t)at;
	to = (loff_t)(size - count);
	if (to < from + (loff_t)count)
		return;
	tell("copy %zu from %zu to %zu", count, at, size - count);
	for (size_t left = count; left > 0;) {
		ssize_t done = copy_file_range(file, &from, file, &to, left, 0);

		must(done > 0, "copy_file_range");
		left -= (size_t)done;
	}
	memmove(model + size - count, model + at, count);
}

static void step_rename(void)
{
	if (is_unlinked)
		return;
	tell("rename");
	must(rename(names[named], names[!named]) == 0, "rename");
	named = !named;
}

/* It goes on without a name for some steps, then as a new file. */
static void step_unlink(void)
{
	if (!is_unlinked) {
		tell("unlink");
		must(unlink(names[named]) == 0, "unlink");
	} else {
		tell("a new file");
		must(close(file) == 0, "close");
		file = opened(O_RDWR | O_CREAT | O_EXCL);
		must(file >= 0, "open");
		size = 0;
	}
	is_unlinked = !is_unlinked;
}

static void step_look(void)
{
	struct stat found;

	tell("stat");
	must(fstat(file, &found) == 0 && (size_t)found.st_size == size, "the size by fstat");
	must(is_unlinked || (stat(names[named], &found) == 0 && (size_t)found.st_size == size), "the size by stat");
	must(lseek(file, 0, SEEK_END) == (off_t)size, "the size by lseek");
}

/* Each stands here as often as it is likely. */
static void (*const all[])(void) = {
	step_read, step_read, step_read, step_write, step_write, step_write, step_append, step_truncate, step_truncate,
	step_map_read, step_map_read, step_map_write, step_map_write, step_reopen, step_reopen, step_direct, step_direct,
	step_hole, step_forget, step_forget, step_copy, step_rename, step_look, step_look,
};

int main(int argc, char **argv)
{
	time_t end = time(NULL) + (argc > 1 ? atoi(argv[1]) : 10);
	unsigned seed = argc > 2 ? (unsigned)strtoul(argv[2], NULL, 10) : (unsigned)(time(NULL) ^ getpid());

	setvbuf(stdout, NULL, _IOLBF, 0);
	printf("seed %u\n", seed);
	srandom(seed);
	file = open(names[0], O_RDWR | O_CREAT | O_TRUNC, 0644);
	must(file >= 0, "open");
	while (time(NULL) < end) {
		if (below(60) == 0)
			step_unlink();
		all[below(sizeof(all) / sizeof(*all))]();
	}
	if (is_unlinked)
		step_unlink();
	step_reopen();
	step_forget();
	must(pread(file, data, LARGEST, 0) == (ssize_t)size, "the whole size");
	compare(data, 0, size);
	must(close(file) == 0 && unlink(names[named]) == 0, "the end");
	printf("%lu steps, no difference\n", steps);
	return 0;
}
