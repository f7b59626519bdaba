/*
 * A microphone without hardware: an alsa-lib I/O plug-in that captures in real time.
 *
 * The sample clock is CLOCK_MONOTONIC, made fast or slow by `ppm`. Nothing is produced ahead of time: how many samples
 * exist is computed from the clock whenever alsa-lib asks, so a reader that stays away longer than the buffer gets a true
 * overrun (-EPIPE). A timerfd wakes pollers once a period, as the interrupt of a card would.
 *
 * Fields of the configuration (all optional):
 *   signal       "sine" (default), "beep": 1 kHz in the first 100 ms of every second of CLOCK_MONOTONIC, silence otherwise,
 *                or "count": every sample is the low bits of its own number since the card was first started
 *   freq         of the sine, Hz (440)
 *   ppm          how much the sample clock is fast (+) or slow (-)
 *   formats      ALSA format names, separated by spaces ("S16_LE"); S16_LE, S32_LE, S24_LE, S24_3LE are known
 *   rate_min, rate_max, channels_min, channels_max   the range of the hardware (8000..192000, 1..8)
 *   granularity  the position moves in steps of so many samples, as behind a USB host controller (1)
 *   gone_after_ms   unplugged so long after the start
 *   gone_file    unplugged while this file exists: reading and opening give -ENODEV
 *   stall_file   while this file exists no sample arrives, and nothing is reported
 */
#include <alsa/asoundlib.h>
#include <alsa/pcm_external.h>
#include <math.h>
#include <stdint.h>
#include <string.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#define NS 1000000000LL
#define AMPLITUDE 0.5012 /* -6 dBFS */

enum signal { SINE, BEEP, COUNT };

struct sim {
	snd_pcm_ioplug_t io;
	int timer;
	enum signal signal;
	double freq, ppm;
	long granularity, gone_after_ms;
	char *gone_file, *stall_file;
	int64_t origin;   /* when sample 0 of the present run began, ns */
	int64_t stalled;  /* since when the run stands still, ns; 0: it runs */
	int64_t consumed; /* samples of the present run handed to the application */
	int64_t before;   /* samples that passed before the present run, read or lost */
	int running, gone;
};

static int64_t now_ns(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * NS + t.tv_nsec;
}

static int exists(const char *path)
{
	return path && access(path, F_OK) == 0;
}

static double real_rate(const struct sim *sim)
{
	return sim->io.rate * (1.0 + sim->ppm * 1e-6);
}

static int64_t produced(struct sim *sim)
{
	int64_t now = now_ns();

	if (exists(sim->stall_file)) {
		if (!sim->stalled)
			sim->stalled = now;
		now = sim->stalled;
	} else if (sim->stalled) { /* a card that hung goes on where it stopped: the time between is lost for ever */
		sim->origin += now - sim->stalled;
		sim->stalled = 0;
	}
	return (int64_t)((double)(now - sim->origin) * real_rate(sim) / NS);
}

static int is_gone(struct sim *sim)
{
	if (sim->gone_after_ms > 0 && sim->running && now_ns() - sim->origin > sim->gone_after_ms * 1000000LL)
		sim->gone = 1;
	if (exists(sim->gone_file))
		sim->gone = 1;
	return sim->gone;
}

static int sim_start(snd_pcm_ioplug_t *io)
{
	struct sim *sim = io->private_data;
	int64_t period = (int64_t)io->period_size * NS / io->rate;
	struct itimerspec timer = {
		.it_interval = { period / NS, period % NS },
		.it_value = { period / NS, period % NS },
	};

	sim->origin = now_ns();
	sim->consumed = 0;
	sim->stalled = 0;
	sim->running = 1;
	timerfd_settime(sim->timer, 0, &timer, NULL);
	return 0;
}

static int sim_stop(snd_pcm_ioplug_t *io)
{
	struct sim *sim = io->private_data;
	struct itimerspec off = { { 0, 0 }, { 0, 0 } };

	timerfd_settime(sim->timer, 0, &off, NULL);
	sim->running = 0;
	return 0;
}

static int sim_prepare(snd_pcm_ioplug_t *io)
{
	struct sim *sim = io->private_data;

	if (is_gone(sim))
		return -ENODEV;
	if (sim->running || sim->consumed)
		sim->before += sim->consumed;
	sim->running = 0;
	sim->consumed = 0;
	return 0;
}

static snd_pcm_sframes_t sim_pointer(snd_pcm_ioplug_t *io)
{
	struct sim *sim = io->private_data;
	int64_t position;

	if (is_gone(sim))
		return -ENODEV;
	if (!sim->running)
		return 0;
	position = produced(sim);
	if (position - sim->consumed >= (int64_t)io->buffer_size)
		return -EPIPE;
	position -= position % sim->granularity;
	if (position < sim->consumed)
		position = sim->consumed;
	return position % (int64_t)io->buffer_size;
}

static double amplitude_at(struct sim *sim, int64_t index)
{
	double at = (double)sim->origin + (double)index * NS / real_rate(sim); /* ns of CLOCK_MONOTONIC */
	double in_second = fmod(at, (double)NS) / NS;

	switch (sim->signal) {
	case BEEP:
		return in_second < 0.1 ? AMPLITUDE * sin(2 * M_PI * 1000.0 * in_second) : 0.0;
	case COUNT:
		return (double)(int16_t)(uint16_t)(sim->before + index) / 32768.0;
	default:
		return AMPLITUDE * sin(2 * M_PI * sim->freq * (double)(sim->before + index) / sim->io.rate);
	}
}

static void store(char *at, snd_pcm_format_t format, double value)
{
	int32_t wide = (int32_t)lrint(value * (format == SND_PCM_FORMAT_S16_LE ? 32768.0 : 2147483648.0 * (1 - 1e-9)));
	int16_t narrow;

	switch (format) {
	case SND_PCM_FORMAT_S16_LE:
		narrow = wide > 32767 ? 32767 : (int16_t)wide;
		memcpy(at, &narrow, 2);
		break;
	case SND_PCM_FORMAT_S24_3LE:
		at[0] = (char)(wide >> 8), at[1] = (char)(wide >> 16), at[2] = (char)(wide >> 24);
		break;
	case SND_PCM_FORMAT_S24_LE:
		wide >>= 8;
		memcpy(at, &wide, 4);
		break;
	default:
		memcpy(at, &wide, 4);
	}
}

static snd_pcm_sframes_t sim_transfer(snd_pcm_ioplug_t *io, const snd_pcm_channel_area_t *areas, snd_pcm_uframes_t offset,
				      snd_pcm_uframes_t size)
{
	struct sim *sim = io->private_data;

	for (snd_pcm_uframes_t i = 0; i < size; i++) {
		double value = amplitude_at(sim, sim->consumed + (int64_t)i);

		for (unsigned int c = 0; c < io->channels; c++)
			store((char *)areas[c].addr + (areas[c].first + (offset + i) * areas[c].step) / 8, io->format, value);
	}
	sim->consumed += (int64_t)size;
	return (snd_pcm_sframes_t)size;
}

static int sim_poll_revents(snd_pcm_ioplug_t *io, struct pollfd *fds, unsigned int count, unsigned short *revents)
{
	struct sim *sim = io->private_data;
	uint64_t ticks;

	(void)count;
	if ((fds[0].revents & POLLIN) && read(sim->timer, &ticks, sizeof ticks) < 0) {
		/* somebody else took the tick: the position tells what there is */
	}
	*revents = fds[0].revents;
	return 0;
}

static int sim_close(snd_pcm_ioplug_t *io)
{
	struct sim *sim = io->private_data;

	close(sim->timer);
	free(sim->gone_file);
	free(sim->stall_file);
	free(sim);
	return 0;
}

static const snd_pcm_ioplug_callback_t callbacks = {
	.start = sim_start,
	.stop = sim_stop,
	.pointer = sim_pointer,
	.transfer = sim_transfer,
	.prepare = sim_prepare,
	.poll_revents = sim_poll_revents,
	.close = sim_close,
};

static int parse_formats(const char *text, unsigned int *formats)
{
	static const snd_pcm_format_t known[] = { SND_PCM_FORMAT_S16_LE, SND_PCM_FORMAT_S32_LE, SND_PCM_FORMAT_S24_LE,
						  SND_PCM_FORMAT_S24_3LE };
	char word[16];
	int count = 0, used;

	while (count < 4 && sscanf(text, " %15s%n", word, &used) == 1) {
		for (size_t i = 0; i < sizeof known / sizeof *known; i++)
			if (!strcmp(word, snd_pcm_format_name(known[i])))
				formats[count++] = known[i];
		text += used;
	}
	return count;
}

SND_PCM_PLUGIN_DEFINE_FUNC(msrecdsim)
{
	snd_config_iterator_t i, next;
	const char *signal = "sine", *formats = "S16_LE", *gone_file = NULL, *stall_file = NULL;
	double freq = 440, ppm = 0;
	long rate_min = 8000, rate_max = 192000, channels_min = 1, channels_max = 8, granularity = 1, gone_after_ms = 0;
	/* As sound cards do; alsa-lib's conversions ("plug") need the second. */
	unsigned int access_list[] = { SND_PCM_ACCESS_RW_INTERLEAVED, SND_PCM_ACCESS_MMAP_INTERLEAVED };
	unsigned int format_list[4];
	int format_count, err;
	struct sim *sim;

	(void)root;
	snd_config_for_each(i, next, conf) {
		snd_config_t *field = snd_config_iterator_entry(i);
		const char *id;

		if (snd_config_get_id(field, &id) < 0 || !strcmp(id, "comment") || !strcmp(id, "type") || !strcmp(id, "hint"))
			continue;
#define NUMBER(name) if (!strcmp(id, #name)) { snd_config_get_integer(field, &name); continue; }
#define REAL(name) if (!strcmp(id, #name)) { snd_config_get_ireal(field, &name); continue; }
#define TEXT(name) if (!strcmp(id, #name)) { snd_config_get_string(field, &name); continue; }
		NUMBER(rate_min) NUMBER(rate_max) NUMBER(channels_min) NUMBER(channels_max) NUMBER(granularity) NUMBER(gone_after_ms)
		REAL(freq) REAL(ppm)
		TEXT(signal) TEXT(formats) TEXT(gone_file) TEXT(stall_file)
		SNDERR("Unknown field %s", id);
		return -EINVAL;
	}
	format_count = parse_formats(formats, format_list);
	if (stream != SND_PCM_STREAM_CAPTURE || format_count == 0 || granularity < 1)
		return -EINVAL;
	if (exists(gone_file))
		return -ENODEV;

	sim = calloc(1, sizeof *sim);
	if (!sim)
		return -ENOMEM;
	sim->signal = !strcmp(signal, "beep") ? BEEP : !strcmp(signal, "count") ? COUNT : SINE;
	sim->freq = freq;
	sim->ppm = ppm;
	sim->granularity = granularity;
	sim->gone_after_ms = gone_after_ms;
	sim->gone_file = gone_file ? strdup(gone_file) : NULL;
	sim->stall_file = stall_file ? strdup(stall_file) : NULL;
	sim->timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
	sim->io.version = SND_PCM_IOPLUG_VERSION;
	sim->io.name = "Simulated microphone";
	sim->io.flags = SND_PCM_IOPLUG_FLAG_MONOTONIC;
	sim->io.poll_fd = sim->timer;
	sim->io.poll_events = POLLIN;
	sim->io.callback = &callbacks;
	sim->io.private_data = sim;
	err = snd_pcm_ioplug_create(&sim->io, name, stream, mode);
	if (err < 0) {
		sim_close(&sim->io);
		return err;
	}
	snd_pcm_ioplug_set_param_list(&sim->io, SND_PCM_IOPLUG_HW_ACCESS, 2, access_list);
	snd_pcm_ioplug_set_param_list(&sim->io, SND_PCM_IOPLUG_HW_FORMAT, format_count, format_list);
	snd_pcm_ioplug_set_param_minmax(&sim->io, SND_PCM_IOPLUG_HW_CHANNELS, channels_min, channels_max);
	snd_pcm_ioplug_set_param_minmax(&sim->io, SND_PCM_IOPLUG_HW_RATE, rate_min, rate_max);
	snd_pcm_ioplug_set_param_minmax(&sim->io, SND_PCM_IOPLUG_HW_PERIOD_BYTES, 128, 1 << 20);
	snd_pcm_ioplug_set_param_minmax(&sim->io, SND_PCM_IOPLUG_HW_PERIODS, 2, 64);
	*pcmp = sim->io.pcm;
	return 0;
}
SND_PCM_PLUGIN_SYMBOL(msrecdsim);
