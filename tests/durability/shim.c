/* Stands between a program and the kernel: records what is written to the files of one directory and synced there, lets
 * chosen calls fail, and ends the process at a chosen one.
 *
 * Environment: SHIM_ROOT the directory; SHIM_RECORD the record, "" for none; SHIM_CONTROL a file of 64-bit numbers,
 * mapped and shared, so that a test may set them at any moment (the enum below gives their places).
 *
 * A record is: what (1 byte), length of the name (4), offset (8), length of the data (8), name, data; little-endian.
 * The file "answers" is the test's own: it is recorded, and never fails.
 * What: 'c' created, 'w' written, 's' synced, 'f' a sync failed, or a write with EIO, 't' cut to the length in offset,
 * 'u' unlinked, 'r' renamed to data.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

enum {
    CALLS,       /* changing calls so far */
    KILL_AT,     /* the process ends instead of this one */
    KILL_AFTER,  /* not 0: it ends instead of the so-manieth after one that failed */
    WRITES,      /* writes so far */
    WRITES_FROM, /* the first that fails */
    WRITES_MANY, /* how many fail */
    WRITES_WHY,  /* their errno; -1: the process ends instead; -2: it ends when half of the write is done */
    SYNCS,
    SYNCS_FROM,
    SYNCS_MANY,
    SYNCS_WHY, /* as above */
    SYNCS_SLOW_MS, /* each sync takes so long */
    PLACES
};

static int64_t nowhere[PLACES];
static volatile int64_t *control = nowhere;
static int record = -1;
static char root[PATH_MAX];
static size_t root_length;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static ssize_t (*real_write)(int, const void *, size_t);
static ssize_t (*real_pwrite)(int, const void *, size_t, off64_t);
static int (*real_open)(const char *, int, ...);
static int (*real_fsync)(int);
static int (*real_fdatasync)(int);
static int (*real_ftruncate)(int, off64_t);
static int (*real_fallocate)(int, off64_t, off64_t);
static int (*real_unlink)(const char *);
static int (*real_rename)(const char *, const char *);

__attribute__((constructor)) static void begin(void)
{
    real_write = dlsym(RTLD_NEXT, "write");
    real_pwrite = dlsym(RTLD_NEXT, "pwrite64");
    real_open = dlsym(RTLD_NEXT, "open64");
    real_fsync = dlsym(RTLD_NEXT, "fsync");
    real_fdatasync = dlsym(RTLD_NEXT, "fdatasync");
    real_ftruncate = dlsym(RTLD_NEXT, "ftruncate64");
    real_fallocate = dlsym(RTLD_NEXT, "posix_fallocate64");
    real_unlink = dlsym(RTLD_NEXT, "unlink");
    real_rename = dlsym(RTLD_NEXT, "rename");
    const char *where = getenv("SHIM_ROOT"), *into = getenv("SHIM_RECORD"), *numbers = getenv("SHIM_CONTROL");
    if (where == NULL || realpath(where, root) == NULL)
        return;
    root_length = strlen(root);
    if (into != NULL && *into)
        record = open(into, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    int fd = numbers == NULL ? -1 : open(numbers, O_RDWR | O_CLOEXEC);
    if (fd >= 0) {
        void *mapped = mmap(NULL, sizeof nowhere, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        if (mapped != MAP_FAILED)
            control = mapped;
        close(fd);
    }
}

/* The name below the root, or NULL for what is none of ours. */
static const char *below(const char *path)
{
    if (root_length == 0 || strncmp(path, root, root_length) != 0)
        return NULL;
    return path[root_length] == '/' ? path + root_length + 1 : path[root_length] == '\0' ? "." : NULL;
}

static const char *name_of(int fd, char *buffer)
{
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = root_length == 0 ? -1 : readlink(link, buffer, PATH_MAX - 1);
    if (length < 0)
        return NULL;
    buffer[length] = '\0';
    return below(buffer);
}

static void note(char what, const char *name, int64_t offset, const void *data, int64_t length)
{
    if (record < 0)
        return;
    uint32_t name_length = strlen(name);
    char head[21];
    head[0] = what;
    memcpy(head + 1, &name_length, 4);
    memcpy(head + 5, &offset, 8);
    memcpy(head + 13, &length, 8);
    real_write(record, head, sizeof head);
    real_write(record, name, name_length);
    if (length > 0)
        real_write(record, data, length);
}

/* Whether the process is to end at this call. */
static int ends(void)
{
    return ++control[CALLS] == control[KILL_AT];
}

static void end(void)
{
    raise(SIGKILL);
}

static int fails(int counter)
{
    int64_t number = ++control[counter], first = control[counter + 1];
    if (first <= 0 || number < first || number >= first + control[counter + 2])
        return 0;
    if (control[KILL_AFTER] && !control[KILL_AT])
        control[KILL_AT] = control[CALLS] + control[KILL_AFTER];
    return 1;
}

static ssize_t written(int fd, const void *data, size_t length, off64_t offset, int at)
{
    char path[PATH_MAX];
    const char *name = name_of(fd, path);
    if (name == NULL)
        return at ? real_pwrite(fd, data, length, offset) : real_write(fd, data, length);
    pthread_mutex_lock(&lock);
    if (ends())
        end();
    ssize_t done = -1;
    int failed = strcmp(name, "answers") != 0 && fails(WRITES), torn = failed && control[WRITES_WHY] == -2;
    if (torn)
        length /= 2;
    if (failed && !torn) {
        if (control[WRITES_WHY] < 0)
            end();
        errno = control[WRITES_WHY];
        if (errno == EIO)
            note('f', name, 0, NULL, 0);
    } else {
        off64_t place = at ? offset : lseek64(fd, 0, SEEK_CUR);
        done = at ? real_pwrite(fd, data, length, offset) : real_write(fd, data, length);
        if (done > 0)
            note('w', name, place, data, done);
    }
    int why = errno;
    if (torn)
        end();
    pthread_mutex_unlock(&lock);
    errno = why;
    return done;
}

ssize_t write(int fd, const void *data, size_t length)
{
    return written(fd, data, length, 0, 0);
}

ssize_t pwrite(int fd, const void *data, size_t length, off_t offset)
{
    return written(fd, data, length, offset, 1);
}

ssize_t pwrite64(int fd, const void *data, size_t length, off64_t offset)
{
    return written(fd, data, length, offset, 1);
}

static int synced(int fd, int (*real)(int))
{
    char path[PATH_MAX];
    const char *name = name_of(fd, path);
    if (name == NULL)
        return real(fd);
    pthread_mutex_lock(&lock);
    if (ends())
        end();
    if (control[SYNCS_SLOW_MS]) {
        struct timespec pause = {control[SYNCS_SLOW_MS] / 1000, control[SYNCS_SLOW_MS] % 1000 * 1000000};
        nanosleep(&pause, NULL);
    }
    int failed = fails(SYNCS), done = failed ? -1 : 0; /* nothing is synced really: a record is what counts */
    if (failed && control[SYNCS_WHY] < 0)
        end();
    note(failed ? 'f' : 's', name, 0, NULL, 0);
    pthread_mutex_unlock(&lock);
    if (failed)
        errno = control[SYNCS_WHY];
    return done;
}

int fsync(int fd)
{
    return synced(fd, real_fsync);
}

int fdatasync(int fd)
{
    return synced(fd, real_fdatasync);
}

int ftruncate64(int fd, off64_t length)
{
    char path[PATH_MAX];
    const char *name = name_of(fd, path);
    if (name == NULL)
        return real_ftruncate(fd, length);
    pthread_mutex_lock(&lock);
    if (ends())
        end();
    int done = real_ftruncate(fd, length);
    if (done == 0)
        note('t', name, length, NULL, 0);
    pthread_mutex_unlock(&lock);
    return done;
}

int ftruncate(int fd, off_t length)
{
    return ftruncate64(fd, length);
}

/* A new name is recorded; it is no call that fails or ends anything. */
int open64(const char *path, int flags, ...)
{
    va_list rest;
    va_start(rest, flags);
    mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0;
    va_end(rest);
    int fresh = (flags & O_CREAT) && root_length && access(path, F_OK) != 0;
    int fd = real_open(path, flags, mode);
    char whole[PATH_MAX];
    const char *name = fresh && fd >= 0 ? name_of(fd, whole) : NULL;
    if (name != NULL) {
        pthread_mutex_lock(&lock);
        note('c', name, 0, NULL, 0);
        pthread_mutex_unlock(&lock);
    }
    return fd;
}

int open(const char *path, int flags, ...)
{
    va_list rest;
    va_start(rest, flags);
    mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0;
    va_end(rest);
    return open64(path, flags, mode);
}

/* Counts and fails as a write does; returns its error. */
int posix_fallocate64(int fd, off64_t offset, off64_t length)
{
    char path[PATH_MAX];
    if (name_of(fd, path) != NULL && fails(WRITES))
        return control[WRITES_WHY];
    return real_fallocate(fd, offset, length);
}

int posix_fallocate(int fd, off_t offset, off_t length)
{
    return posix_fallocate64(fd, offset, length);
}

int unlink(const char *path)
{
    char whole[PATH_MAX];
    const char *name = realpath(path, whole) == NULL ? NULL : below(whole);
    if (name == NULL)
        return real_unlink(path);
    pthread_mutex_lock(&lock);
    if (ends())
        end();
    int done = real_unlink(path);
    if (done == 0)
        note('u', name, 0, NULL, 0);
    pthread_mutex_unlock(&lock);
    return done;
}

int rename(const char *from, const char *to)
{
    char whole[PATH_MAX];
    const char *name = realpath(from, whole) == NULL ? NULL : below(whole);
    if (name == NULL)
        return real_rename(from, to);
    pthread_mutex_lock(&lock);
    if (ends())
        end();
    int done = real_rename(from, to);
    char moved[PATH_MAX];
    const char *after = done == 0 && realpath(to, moved) != NULL ? below(moved) : NULL;
    if (after != NULL)
        note('r', name, 0, after, strlen(after));
    pthread_mutex_unlock(&lock);
    return done;
}
