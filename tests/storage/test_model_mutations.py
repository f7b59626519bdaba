"""The models of storage and media are able to fail: each rule is broken on purpose, and one has to notice.

An ordinary run breaks one rule of each promise; `MSRECD_MUTATIONS=1` breaks all of them and prints how many stories it
took to find each (`pytest -s`).
"""

from __future__ import annotations

import dataclasses
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test
from media_model import MediaModel
from storage_model import StorageModel

from msrecd.clock.wall import Corrections, WallTime
from msrecd.errors import StorageError
from msrecd.storage import (
    files,
    janitor,
    journal,
    layout,
    listing,
    medium,
    naming,
    recording,
    recovery,
    retention,
    root,
    store,
)
from msrecd.storage.index import Index

STORIES = 400  # in which a broken rule has to be found
Patch = pytest.MonkeyPatch


def replace_result(patch: Patch, owner: Any, name: str, change: Callable[..., Any]) -> None:
    """`owner.name` gives `change(its result, *its arguments)` from now on."""
    real = getattr(owner, name)
    patch.setattr(owner, name, lambda *a, **k: change(real(*a, **k), *a, **k))


# --- protected -------------------------------------------------------------------------------------------------------


def protection_is_not_looked_up(patch: Patch) -> None:
    patch.setattr(Index, "protect", lambda *_, **__: None)
    patch.setattr(root.StorageRoot, "is_protected", lambda *_: False)


def protection_is_forgotten_with_the_index(patch: Patch) -> None:
    replace_result(patch, listing.Listing, "_ref", lambda ref, *_, **__: dataclasses.replace(ref, protected=False))
    patch.setattr(root.StorageRoot, "is_protected", lambda *_: False)


# --- open ------------------------------------------------------------------------------------------------------------


def the_open_file_goes_with_its_folder_fellows(patch: Patch) -> None:
    real = files.remove_empty_folders

    def remove(root: int, relative: str) -> None:
        with files.closing_fd(files.open_folder(root, relative)) as folder:
            for name in os.listdir(folder):  # noqa: PTH208
                if name.endswith(layout.PART):
                    os.unlink(name, dir_fd=folder)
        real(root, relative)

    patch.setattr(files, "remove_empty_folders", remove)


def the_manifest_of_an_open_recording_goes_with_its_last_chunk(patch: Patch) -> None:
    patch.setattr(store.Store, "_is_open", lambda *_: False)


# --- foreign ---------------------------------------------------------------------------------------------------------


def whole_folders_go(patch: Patch) -> None:
    def remove(root: int, relative: str) -> None:
        shutil.rmtree(f"/proc/self/fd/{root}/{relative}", ignore_errors=True)

    patch.setattr(files, "remove_empty_folders", remove)


def whatever_has_the_name_of_a_chunk_is_ours(patch: Patch) -> None:
    """The index is built from folders instead of manifests."""
    real = listing.Listing._listed_files

    def found(self: Any, root: int, manifest_file: str, recording_id: str, *more: Any) -> list[Any]:
        refs = list(real(self, root, manifest_file, recording_id, *more))
        day = manifest_file.rpartition("/")[0]
        with files.closing_fd(files.open_folder(root, day)) as folder:
            for name in os.listdir(folder):  # noqa: PTH208
                parsed = layout.parse_chunk_name(name)
                if refs and parsed is not None and not parsed.is_part and parsed.recording_id != recording_id:
                    other = {"file": f"{day}/{name}", "recording_id": parsed.recording_id, "seq": parsed.seq}
                    refs.append(dataclasses.replace(refs[0], **other))
        return refs

    patch.setattr(listing.Listing, "_listed_files", found)


# --- age and clocks --------------------------------------------------------------------------------------------------


def age_is_told_by_a_clock_that_nobody_vouches_for(patch: Patch) -> None:
    patch.setattr(WallTime, "age_now_ns", WallTime.now_ns)


def the_age_of_untrusted_recordings_is_believed(patch: Patch) -> None:
    replace_result(patch, listing.Listing, "_ref", lambda ref, *_, **__: dataclasses.replace(ref, trusted=True))


def a_step_makes_old(patch: Patch) -> None:
    patch.setattr(WallTime, "age_now_ns", lambda self: self.now_ns() if self.trusted else None)


def trust_outlives_a_clock_set_by_hand(patch: Patch) -> None:
    real = WallTime._is_trusted

    def is_trusted(self: Any) -> bool:
        self._latched = self._latched or bool(self._last is not None and self._last.trusted)
        return real(self)

    patch.setattr(WallTime, "_is_trusted", is_trusted)


def names_follow_a_clock_that_goes_back(patch: Patch) -> None:
    patch.setattr(naming, "LARGEST_STEP_BACK_NS", 0)


# --- limits ----------------------------------------------------------------------------------------------------------


def total_is_not_kept(patch: Patch) -> None:
    patch.setattr(retention._Planner, "by_total", lambda *_: None)


def the_quota_of_a_recorder_is_not_kept(patch: Patch) -> None:
    real = retention.plan
    patch.setattr(janitor, "plan", lambda view, limits, _own, situation: real(view, limits, {}, situation))


def room_is_not_kept(patch: Patch) -> None:
    patch.setattr(retention._Planner, "by_free", lambda *_: None)


def age_is_not_kept(patch: Patch) -> None:
    patch.setattr(retention._Planner, "by_age", lambda *_: None)


def open_chunks_do_not_count(patch: Patch) -> None:
    patch.setattr(store.Store, "_open_space", lambda *_: janitor.OpenSpace(by_recorder={}))


def chunks_left_unfinished_do_not_count(patch: Patch) -> None:
    def space(result: Any, self: Any) -> Any:
        by_recorder = self.recordings.space().by_recorder
        return dataclasses.replace(result, by_recorder=by_recorder)

    replace_result(patch, store.Store, "_open_space", space)


def too_much_goes(patch: Patch) -> None:
    real = retention._Planner._free
    patch.setattr(
        retention._Planner,
        "_free",
        lambda self, who, excess, why: real(self, who, excess * 3 if excess > 0 else 0, why),
    )


def the_newest_go_first(patch: Patch) -> None:
    real = janitor._Without.oldest
    patch.setattr(janitor._Without, "oldest", lambda self, who: iter(list(real(self, who))[::-1]))


def the_others_pay_for_a_quota(patch: Patch) -> None:
    real = retention._Planner._free
    patch.setattr(retention._Planner, "_free", lambda self, _who, excess, why: real(self, None, excess, why))


# --- crashes ---------------------------------------------------------------------------------------------------------


def what_was_open_is_thrown_away(patch: Patch) -> None:
    real = recovery.recover_chunk

    def recover(root: int, entry: Any, **more: Any) -> Any:
        found = real(root, entry, **more)
        if isinstance(found, Mapping):
            os.unlink(found["file"], dir_fd=root)
        return found

    patch.setattr(recovery, "recover_chunk", recover)


def what_was_open_is_not_looked_for(patch: Patch) -> None:
    patch.setattr(journal.Journal, "read_all", lambda *_: iter(()))
    patch.setattr(recovery.Recovery, "_strays", lambda *_, **__: iter(()))


def a_recovered_chunk_is_not_listed(patch: Patch) -> None:
    real = root.StorageRoot.append_line

    def append(self: Any, root: int, place: str, values: Mapping[str, object]) -> None:
        if not values.get("recovered"):
            real(self, root, place, values)

    patch.setattr(root.StorageRoot, "append_line", append)


def a_torn_end_stays(patch: Patch) -> None:
    patch.setattr(os, "ftruncate", lambda *_: None)


def deletions_are_not_listed(patch: Patch) -> None:
    patch.setattr(root.StorageRoot, "append_deletion", lambda *_: None)


def a_chunk_is_not_indexed(patch: Patch) -> None:
    patch.setattr(listing.Listing, "add", lambda *_: None)


def numbers_are_given_twice(patch: Patch) -> None:
    def reuse(_result: Any, self: Any, *_a: Any, **_k: Any) -> None:
        self._next_seq = 1

    replace_result(patch, recording.Recording, "settled", reuse)


# --- media: what is known of one is believed of another --------------------------------------------------------------


def the_clock_of_another_boot_corrects(patch: Patch) -> None:
    real = Corrections.correct

    def correct(self: Corrections, boot_id: str, utc_ns: int) -> int | None:
        return next(
            (found for boot in [boot_id, *self._boots] if (found := real(self, boot, utc_ns)) is not None), None
        )

    patch.setattr(Corrections, "correct", correct)


def numbers_begin_again_on_a_medium(patch: Patch) -> None:
    patch.setattr(medium.Medium, "use_boot", lambda _self, number, *_: number)


def another_medium_is_not_noticed(patch: Patch) -> None:
    patch.setattr(root.StorageRoot, "check", lambda self: self.medium)


def a_second_daemon_is_let_in(patch: Patch) -> None:
    patch.setattr(medium.Medium, "lock", lambda _: None)


def a_missing_mount_is_recorded_into(patch: Patch) -> None:
    patch.setattr(medium, "_require_mounted", lambda *_, **__: None)


def one_index_is_for_all_media(patch: Patch) -> None:
    patch.setattr(medium.Medium, "id", property(lambda _: "0" * 32))


def protection_stays_with_the_machine(patch: Patch) -> None:
    patch.setattr(Index, "protect", lambda *_, **__: None)
    patch.setattr(root.StorageRoot, "is_protected", lambda *_: False)
    replace_result(patch, listing.Listing, "_ref", lambda ref, *_, **__: dataclasses.replace(ref, protected=False))


MEDIA_MUTATIONS = [
    the_clock_of_another_boot_corrects,
    numbers_begin_again_on_a_medium,
    another_medium_is_not_noticed,
    a_second_daemon_is_let_in,
    a_missing_mount_is_recorded_into,
    one_index_is_for_all_media,
    protection_stays_with_the_machine,
]
MUTATIONS = [
    value for value in list(globals().values()) if callable(value) and getattr(value, "__module__", "") == __name__
]
MUTATIONS = [
    value
    for value in MUTATIONS
    if value not in (replace_result, *MEDIA_MUTATIONS) and value.__code__.co_varnames[:1] == ("patch",)
]
ALWAYS = {
    protection_is_not_looked_up,
    the_open_file_goes_with_its_folder_fellows,
    whole_folders_go,
    age_is_told_by_a_clock_that_nobody_vouches_for,
    total_is_not_kept,
    the_clock_of_another_boot_corrects,
    a_second_daemon_is_let_in,
}


class CountedStorage(StorageModel):
    stories = 0

    def __init__(self) -> None:
        type(self).stories += 1
        super().__init__()


class CountedMedia(MediaModel):
    stories = 0

    def __init__(self) -> None:
        type(self).stories += 1
        super().__init__()


@pytest.fixture
def quiet() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.timeout(300)
@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("mutation", [*MUTATIONS, *MEDIA_MUTATIONS], ids=lambda mutation: mutation.__name__)
def test_a_broken_rule_is_found(mutation: Callable[[Patch], None], monkeypatch: pytest.MonkeyPatch) -> None:
    if mutation not in ALWAYS and not os.environ.get("MSRECD_MUTATIONS"):
        pytest.skip("MSRECD_MUTATIONS=1 breaks this rule as well")
    mutation(monkeypatch)
    model: type[CountedStorage] | type[CountedMedia] = CountedMedia if mutation in MEDIA_MUTATIONS else CountedStorage
    model.stories = 0
    with pytest.raises((AssertionError, OSError, LookupError, ValueError, StorageError)) as caught:
        run_state_machine_as_test(
            model,
            settings=settings(
                max_examples=STORIES,
                stateful_step_count=30,
                deadline=None,
                database=None,
                derandomize=True,
                phases=[Phase.generate],
                report_multiple_bugs=False,
                suppress_health_check=list(HealthCheck),
            ),
        )
    print(f"{mutation.__name__}: found in story {model.stories}: {caught.value!r:.160}")
