"""Events, listeners, errors, virtual devices."""

import msrecd
from msrecd.devices.virtual import VirtualBackend, VirtualCamera, VirtualMicrophone


class Button(msrecd.EventTarget):
    def press(self) -> bool:
        return self.dispatch_event(msrecd.Event("press", {"cancelable": True}))


def listen(button: Button) -> msrecd.AbortController:
    controller = msrecd.AbortController()

    def pressed(event: msrecd.Event) -> None:
        event.prevent_default()

    button.add_event_listener("press", pressed, {"signal": controller.signal, "passive": False})
    return controller


async def unplug() -> None:
    camera = VirtualCamera("Camera", modes=[(640, 480, 30)])
    async with msrecd.MediaDevices(backends=[VirtualBackend([camera, VirtualMicrophone("Microphone")])]) as devices:
        devices.ondevicechange = lambda event: print(event.devices)
        stream = await devices.get_user_media({"video": True})
        stream.get_tracks()[0].onended = lambda _: print("ended")
        camera.unplug()
        try:
            await devices.get_user_media({"video": True})
        except msrecd.NotFoundError as exc:
            print(exc.name, exc.message, exc.code)
