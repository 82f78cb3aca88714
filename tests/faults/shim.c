/* Stands between the program and libc (LD_PRELOAD), counts what the program does to files below one folder, and fails one
 * of these operations, or all from one on.
 *
 *   FAULT_ROOT   the folder
 *   FAULT_LOG    a file to which every operation is appended as "kind path"
 *   FAULT        "kind number action [sticky]": the number-th operation of the kind (from 1; `any` counts all kinds) is
 *                refused with the errno that `action` is, or `short` (half of it is written or read) or `kill` (SIGKILL
 *                just before it); `sticky` refuses every later one of the kind too
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define SHORT (-1)
#define KILL (-2)

static char root[PATH_MAX], kind[32] = "none";
static size_t root_length;
static int at, action, sticky, log_file = -1;
static atomic_int count;

__attribute__((constructor)) static void start(void) {
    const char *folder = getenv("FAULT_ROOT"), *log = getenv("FAULT_LOG"), *fault = getenv("FAULT");
    char what[16] = "", more[16] = "";
    if (folder) root_length = strlen(strncpy(root, folder, sizeof root - 1));
    if (log) log_file = syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (fault && sscanf(fault, "%31s %d %15s %15s", kind, &at, what, more) >= 3) {
        action = !strcmp(what, "short") ? SHORT : !strcmp(what, "kill") ? KILL : atoi(what);
        sticky = !strcmp(more, "sticky");
    }
}

/* What to do with an operation: 0 to let it pass, else an errno, SHORT. */
static int refused(const char *operation, const char *path) {
    if (!root_length || strncmp(path, root, root_length)) return 0;
    if (log_file >= 0) {
        char line[PATH_MAX + 64];
        int length = snprintf(line, sizeof line, "%s %s\n", operation, path);
        syscall(SYS_write, log_file, line, length);
    }
    if (strcmp(kind, "any") && strcmp(kind, operation)) return 0;
    int number = atomic_fetch_add(&count, 1) + 1;
    if (number != at && !(sticky && number > at)) return 0;
    if (action == KILL) syscall(SYS_kill, getpid(), SIGKILL);
    return action;
}

static int refused_file(const char *operation, int file) {
    char link[64], path[PATH_MAX];
    int kept = errno;
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = root_length ? syscall(SYS_readlinkat, AT_FDCWD, link, path, sizeof path - 1) : -1;
    errno = kept;
    if (length < 0) return 0;
    path[length] = 0;
    return refused(operation, path);
}

static int refused_at(const char *operation, int folder, const char *name) {
    char path[2 * PATH_MAX] = "";
    if (name[0] != '/') {
        char link[64] = "/proc/self/cwd";
        int kept = errno;
        if (folder != AT_FDCWD) snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
        ssize_t length = syscall(SYS_readlinkat, AT_FDCWD, link, path, PATH_MAX);
        errno = kept;
        if (length < 0) return 0;
        path[length] = '/';
        path[length + 1] = 0;
    }
    strncat(path, name, PATH_MAX - 1);
    return refused(operation, path);
}

#define REAL(result, name, ...) \
    static result (*real)(__VA_ARGS__); \
    if (!real) real = (result(*)(__VA_ARGS__))dlsym(RTLD_NEXT, #name)
#define REFUSE(why) \
    do { \
        int why_not = (why); \
        if (why_not > 0) { \
            errno = why_not; \
            return -1; \
        } \
    } while (0)

static const char *kind_of_open(int flags) {
    return flags & O_DIRECTORY ? "folder" : (flags & O_ACCMODE) == O_RDONLY ? "open" : "create";
}

#define OPEN(name) \
    int name(const char *path, int flags, ...) { \
        va_list rest; \
        va_start(rest, flags); \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0; \
        va_end(rest); \
        REAL(int, name, const char *, int, ...); \
        REFUSE(refused_at(kind_of_open(flags), AT_FDCWD, path)); \
        return real(path, flags, mode); \
    }
OPEN(open)
OPEN(open64)

#define OPEN_AT(name) \
    int name(int folder, const char *path, int flags, ...) { \
        va_list rest; \
        va_start(rest, flags); \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0; \
        va_end(rest); \
        REAL(int, name, int, const char *, int, ...); \
        REFUSE(refused_at(kind_of_open(flags), folder, path)); \
        return real(folder, path, flags, mode); \
    }
OPEN_AT(openat)
OPEN_AT(openat64)

#define TRANSFER(name, operation, type) \
    ssize_t name(int file, type bytes, size_t length) { \
        REAL(ssize_t, name, int, type, size_t); \
        int why = refused_file(operation, file); \
        if (why == SHORT) length = length > 1 ? length / 2 : length; \
        REFUSE(why); \
        return real(file, bytes, length); \
    }
TRANSFER(write, "write", const void *)
TRANSFER(read, "read", void *)

ssize_t writev(int file, const struct iovec *parts, int number) {
    REAL(ssize_t, writev, int, const struct iovec *, int);
    int why = refused_file("write", file);
    if (why == SHORT && number > 1) number /= 2;
    REFUSE(why);
    return real(file, parts, number);
}

#define TRANSFER_AT(name, operation, type, offset_type) \
    ssize_t name(int file, type bytes, size_t length, offset_type offset) { \
        REAL(ssize_t, name, int, type, size_t, offset_type); \
        int why = refused_file(operation, file); \
        if (why == SHORT) length = length > 1 ? length / 2 : length; \
        REFUSE(why); \
        return real(file, bytes, length, offset); \
    }
TRANSFER_AT(pwrite, "write", const void *, off_t)
TRANSFER_AT(pwrite64, "write", const void *, off64_t)

ssize_t copy_file_range(int from, off64_t *at_from, int to, off64_t *at_to, size_t length, unsigned flags) {
    REAL(ssize_t, copy_file_range, int, off64_t *, int, off64_t *, size_t, unsigned);
    REFUSE(refused_file("write", to));
    return real(from, at_from, to, at_to, length, flags);
}

static const char *kind_of_sync(int file) {
    struct stat status;
    return fstat(file, &status) == 0 && S_ISDIR(status.st_mode) ? "sync-folder" : "sync";
}

#define ON_FILE(name, operation) \
    int name(int file) { \
        REAL(int, name, int); \
        REFUSE(refused_file(operation, file)); \
        return real(file); \
    }
ON_FILE(fsync, kind_of_sync(file))
ON_FILE(fdatasync, kind_of_sync(file))

#define TRUNCATE(name, offset_type) \
    int name(int file, offset_type length) { \
        REAL(int, name, int, offset_type); \
        REFUSE(refused_file("truncate", file)); \
        return real(file, length); \
    }
TRUNCATE(ftruncate, off_t)
TRUNCATE(ftruncate64, off64_t)

int flock(int file, int how) {
    REAL(int, flock, int, int);
    REFUSE(refused_file("lock", file));
    return real(file, how);
}

int rename(const char *from, const char *to) {
    REAL(int, rename, const char *, const char *);
    REFUSE(refused_at("rename", AT_FDCWD, to));
    return real(from, to);
}

int renameat(int from_folder, const char *from, int to_folder, const char *to) {
    REAL(int, renameat, int, const char *, int, const char *);
    REFUSE(refused_at("rename", to_folder, to));
    return real(from_folder, from, to_folder, to);
}

int link(const char *from, const char *to) {
    REAL(int, link, const char *, const char *);
    REFUSE(refused_at("rename", AT_FDCWD, to));
    return real(from, to);
}

int linkat(int from_folder, const char *from, int to_folder, const char *to, int flags) {
    REAL(int, linkat, int, const char *, int, const char *, int);
    REFUSE(refused_at("rename", to_folder, to));
    return real(from_folder, from, to_folder, to, flags);
}

int unlink(const char *path) {
    REAL(int, unlink, const char *);
    REFUSE(refused_at("remove", AT_FDCWD, path));
    return real(path);
}

int unlinkat(int folder, const char *path, int flags) {
    REAL(int, unlinkat, int, const char *, int);
    REFUSE(refused_at("remove", folder, path));
    return real(folder, path, flags);
}

int rmdir(const char *path) {
    REAL(int, rmdir, const char *);
    REFUSE(refused_at("remove", AT_FDCWD, path));
    return real(path);
}

int mkdir(const char *path, mode_t mode) {
    REAL(int, mkdir, const char *, mode_t);
    REFUSE(refused_at("mkdir", AT_FDCWD, path));
    return real(path, mode);
}

DIR *opendir(const char *path) {
    REAL(DIR *, opendir, const char *);
    int why = refused_at("list", AT_FDCWD, path);
    if (why > 0) {
        errno = why;
        return NULL;
    }
    return real(path);
}

int statx(int folder, const char *restrict path, int flags, unsigned mask, struct statx *restrict status) {
    REAL(int, statx, int, const char *, int, unsigned, struct statx *);
    /* Rust's library asks with no path whether the call exists, which the header declares never to happen. */
    const char *volatile name = path;
    REFUSE(!name ? 0 : *name ? refused_at("stat", folder, path) : refused_file("stat", folder));
    return real(folder, path, flags, mask, status);
}
