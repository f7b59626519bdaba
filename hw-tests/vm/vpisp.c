// SPDX-License-Identifier: GPL-2.0
/*
 * vpisp - what is known of a Raspberry Pi 5 before and after its image processor's driver is loaded, for tests.
 * Loaded, it is a board that the device tree calls bcm2712: /proc/device-tree leads to the folder "tree" (this kernel has
 * no device tree of its own). With "isp" set, the first video node of that driver is there as well, under its names.
 * Nobody can stream from it.
 */
#include <linux/module.h>
#include <linux/platform_device.h>
#include <linux/proc_fs.h>
#include <media/v4l2-dev.h>
#include <media/v4l2-device.h>
#include <media/v4l2-ioctl.h>

static char *tree = "/run/vm-board";
module_param(tree, charp, 0444);
MODULE_PARM_DESC(tree, "folder with the files of the device tree");

static struct platform_device *pdev;
static struct proc_dir_entry *link;
static struct v4l2_device v4l2_dev;
static struct video_device vfd;
static DEFINE_MUTEX(lock);
static bool isp;

static int querycap(struct file *file, void *priv, struct v4l2_capability *cap)
{
	strscpy(cap->driver, "pispbe", sizeof(cap->driver));
	strscpy(cap->card, "pispbe", sizeof(cap->card));
	return 0;
}

static const struct v4l2_ioctl_ops ioctl_ops = { .vidioc_querycap = querycap };
static const struct v4l2_file_operations fops = {
	.owner = THIS_MODULE, .open = v4l2_fh_open, .release = v4l2_fh_release, .unlocked_ioctl = video_ioctl2,
};

static int add_isp(void)
{
	memset(&vfd, 0, sizeof(vfd));
	strscpy(vfd.name, "pispbe-input", sizeof(vfd.name));
	vfd.vfl_dir = VFL_DIR_TX;
	vfd.fops = &fops;
	vfd.ioctl_ops = &ioctl_ops;
	vfd.release = video_device_release_empty;
	vfd.lock = &lock;
	vfd.v4l2_dev = &v4l2_dev;
	vfd.device_caps = V4L2_CAP_VIDEO_OUTPUT | V4L2_CAP_STREAMING;
	return video_register_device(&vfd, VFL_TYPE_VIDEO, 20);
}

static int set_isp(const char *value, const struct kernel_param *param)
{
	bool wanted;
	int ret = kstrtobool(value, &wanted);

	if (ret || !pdev)
		return ret ? ret : -EINVAL;	/* after loading only */
	if (wanted && !isp)
		ret = add_isp();
	else if (!wanted && isp)
		video_unregister_device(&vfd);
	if (!ret)
		isp = wanted;
	return ret;
}

static const struct kernel_param_ops isp_ops = { .set = set_isp, .get = param_get_bool };
module_param_cb(isp, &isp_ops, &isp, 0644);
MODULE_PARM_DESC(isp, "whether the image processor's driver is there");

static int __init vpisp_init(void)
{
	int ret;

	pdev = platform_device_register_simple("vpisp", -1, NULL, 0);
	if (IS_ERR(pdev))
		return PTR_ERR(pdev);
	strscpy(v4l2_dev.name, "vpisp", sizeof(v4l2_dev.name));	/* no driver is bound to pdev */
	ret = v4l2_device_register(&pdev->dev, &v4l2_dev);
	if (ret)
		goto e1;
	link = proc_symlink("device-tree", NULL, tree);
	if (link)
		return 0;
	ret = -ENOMEM;
	v4l2_device_unregister(&v4l2_dev);
e1:
	platform_device_unregister(pdev);
	return ret;
}

static void __exit vpisp_exit(void)
{
	if (isp)
		video_unregister_device(&vfd);
	proc_remove(link);
	v4l2_device_unregister(&v4l2_dev);
	platform_device_unregister(pdev);
}

module_init(vpisp_init);
module_exit(vpisp_exit);
MODULE_DESCRIPTION("a Raspberry Pi 5 whose image processor comes late");
MODULE_LICENSE("GPL");
