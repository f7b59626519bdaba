// SPDX-License-Identifier: GPL-2.0
// The only program of the machine of cma.py: fills CMA with page cache, then has a driver allocate a camera's frames in it.
// Says what it found on the console, and switches off: lines that begin with "cma:".
#include <errno.h>
#include <fcntl.h>
#include <linux/videodev2.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define ROUNDS 10
#define BUFFERS 6
#define MIB (1 << 20)

static void say(const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	printf("cma: ");
	vprintf(format, arguments);
	printf("\n");
	fflush(stdout);
	va_end(arguments);
}

static void end(void)
{
	sync();
	reboot(RB_POWER_OFF);
	for (;;)
		pause();
}

static void fail(const char *what)
{
	say("failed %s: %s", what, strerror(errno));
	end();
}

static long field(const char *path, const char *name)
{
	FILE *file = fopen(path, "r");
	char line[256];
	long value = -1;

	while (file && fgets(line, sizeof(line), file))
		if (!strncmp(line, name, strlen(name)))
			value = strtol(line + strlen(name), NULL, 10);
	if (file)
		fclose(file);
	return value;
}

static void load_modules(void)
{
	FILE *list = fopen("/modules", "r");
	char line[256];

	if (!list)
		fail("modules");
	while (fgets(line, sizeof(line), list)) {
		char *options;
		int fd;

		line[strcspn(line, "\n")] = 0;
		options = line + strcspn(line, " ");
		if (*options)
			*options++ = 0;
		fd = open(line, O_RDONLY);
		if (fd < 0 || (syscall(SYS_finit_module, fd, options, 0) && errno != EEXIST))
			fail(line);
		close(fd);
	}
}

/*
 * As a recording would: what is written to a file, or read, stays in the page cache, of which a part lies in CMA. Of a disk
 * without a file system it would not: the kernel takes those pages elsewhere.
 */
static void fill(long until_kib)
{
	static char block[MIB];
	int disk = open("/disk/file", O_RDONLY);

	if (disk < 0)
		fail("/disk/file");
	while (field("/proc/meminfo", "CmaFree:") > until_kib && read(disk, block, MIB) > 0)
		;
	close(disk);
}

/* What a camera takes, in contiguous memory; the number of bytes, or 0. */
static long allocate(int width, int height)
{
	struct v4l2_format format = { .type = V4L2_BUF_TYPE_VIDEO_CAPTURE };
	struct v4l2_requestbuffers request = { .type = V4L2_BUF_TYPE_VIDEO_CAPTURE, .memory = V4L2_MEMORY_MMAP };
	int camera = open("/dev/video0", O_RDWR), tries, ret;

	for (tries = 0; camera < 0 && tries < 100; tries++) {
		usleep(50000);
		camera = open("/dev/video0", O_RDWR);
	}
	if (camera < 0)
		fail("/dev/video0");
	format.fmt.pix.width = width;
	format.fmt.pix.height = height;
	format.fmt.pix.pixelformat = V4L2_PIX_FMT_YUV420;
	if (ioctl(camera, VIDIOC_S_FMT, &format))
		fail("VIDIOC_S_FMT");
	if (format.fmt.pix.width != (unsigned int)width || format.fmt.pix.height != (unsigned int)height)
		fail("the size");
	request.count = BUFFERS;
	ret = ioctl(camera, VIDIOC_REQBUFS, &request);
	close(camera); /* gives it all back */
	return !ret && request.count == BUFFERS ? (long)format.fmt.pix.sizeimage * BUFFERS : 0;
}

int main(int argc, char **argv)
{
	int width = argc > 1 ? atoi(argv[1]) : 1920, height = argc > 2 ? atoi(argv[2]) : 1080, round;

	mkdir("/proc", 0755);
	mkdir("/dev", 0755);
	mount("proc", "/proc", "proc", 0, NULL);
	mount("dev", "/dev", "devtmpfs", 0, NULL);
	load_modules();
	mkdir("/disk", 0755);
	for (round = 0; mount("/dev/vda", "/disk", "ext4", MS_RDONLY, NULL); round++) {
		if (round == 100)
			fail("the disk");
		usleep(50000);
	}
	say("begin %ld kB of CMA", field("/proc/meminfo", "CmaTotal:"));
	for (round = 1; round <= ROUNDS; round++) {
		long before = field("/proc/vmstat", "cma_alloc_success"), free, total, bytes;

		fill(12 << 10);
		total = field("/proc/meminfo", "CmaTotal:");
		free = field("/proc/meminfo", "CmaFree:");
		bytes = allocate(width, height);
		say("round %d CmaTotal %ld CmaFree %ld bytes %ld from_cma %ld", round, total, free, bytes,
		    field("/proc/vmstat", "cma_alloc_success") - before);
	}
	say("end");
	end();
	return 0;
}
