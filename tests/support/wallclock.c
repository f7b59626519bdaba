/* A wall clock that a test sets: LD_PRELOAD it into a process, with MSRECD_TEST_WALLCLOCK naming a file of two 64-bit
 * integers: what the wall clock is off by, in nanoseconds, and whether the kernel says that it is synchronised. The file
 * is mapped, so a step is seen at once. CLOCK_MONOTONIC is the real one, as on a machine whose clock is set. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/timex.h>
#include <time.h>
#include <unistd.h>

static volatile int64_t *wall;

__attribute__((constructor)) static void map_wall(void) {
    const char *path = getenv("MSRECD_TEST_WALLCLOCK");
    int fd = path == NULL ? -1 : open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return;
    void *mapped = mmap(NULL, 16, PROT_READ, MAP_SHARED, fd, 0);
    if (mapped != MAP_FAILED) wall = mapped;
    close(fd);
}

int clock_gettime(clockid_t id, struct timespec *out) {
    if (syscall(SYS_clock_gettime, id, out) != 0) return -1; /* sets errno */
    if (wall != NULL && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)) {
        int64_t ns = (int64_t)out->tv_sec * 1000000000 + out->tv_nsec + wall[0];
        out->tv_sec = ns / 1000000000;
        out->tv_nsec = ns % 1000000000;
    }
    return 0;
}

int gettimeofday(struct timeval *restrict out, void *restrict zone) {
    struct timespec now;
    (void)zone;
    if (clock_gettime(CLOCK_REALTIME, &now) != 0) return -1;
    out->tv_sec = now.tv_sec;
    out->tv_usec = now.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *out) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (out != NULL) *out = now.tv_sec;
    return now.tv_sec;
}

int adjtimex(struct timex *answer) {
    if (wall == NULL) return (int)syscall(SYS_adjtimex, answer);
    if (answer->modes != 0) {
        errno = EPERM; /* nobody sets it but the test */
        return -1;
    }
    answer->status = wall[1] ? 0 : STA_UNSYNC;
    answer->maxerror = wall[1] ? 1000 : 16000000;
    return wall[1] ? TIME_OK : TIME_ERROR;
}
