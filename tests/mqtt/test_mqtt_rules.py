"""Section 6 of the contract, rule by rule, and where each is tested. The list is checked: every test named exists."""

from __future__ import annotations

import ast
import functools
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
COMMANDS, SERVICE, MESSAGES = (
    "mqtt/test_mqtt_commands.py",
    "mqtt/test_mqtt_service.py",
    "control/test_control_commands.py",
)
SECURE, SPOOL, CONTRACT = "mqtt/test_mqtt_secure.py", "mqtt/test_mqtt_spool.py", "system/test_mqtt_contract.py"
DAEMON, WHOLE, PAYLOADS = "system/test_daemon.py", "system/test_commands.py", "system/test_payloads.py"
DEVICES = "system/test_mqtt_devices.py"

RULES = (
    # topics: names, QoS, retention, schema
    ("every topic, its QoS, its retention, its schema", PAYLOADS, "test_all_that_is_published_is_as_documented"),
    ("availability: online when commands are heard, offline on a clean stop", SERVICE,
     "test_offline_is_said_on_a_clean_stop"),
    ("availability: last will after ten seconds", CONTRACT,
     "test_a_killed_device_is_offline_after_ten_seconds_unless_it_is_back"),
    ("will, its delay, session, packet size, subscriptions", CONTRACT, "test_what_it_says_when_it_connects"),
    ("state/daemon: next scheduled starts", PAYLOADS, "test_all_that_is_published_is_as_documented"),
    ("state/devices: free, busy, missing", DEVICES, "test_devices_that_come_and_go_are_told"),
    ("state/recorder: every change once, since, rev", CONTRACT, "test_one_recording_in_its_states"),
    ("state/recorder: error with code, message, since", DAEMON,
     "test_a_missing_device_is_an_error_state_and_the_others_run"),
    ("state/recorder: until", WHOLE, "test_a_duration_ends_a_recording"),
    ("states come again after a reconnection", SERVICE,
     "test_states_come_again_after_a_broker_without_memory_restarts"),
    ("state/health: every 60 s, QoS 0", DEVICES, "test_health_comes_again_and_again"),
    ("event/recorder: started, stopped, paused, resumed, chunk", CONTRACT, "test_one_recording_in_its_states"),
    ("event/recorder: gap, error", "system/test_replug.py",
     "test_an_audio_recording_goes_on_in_a_new_chunk_when_the_microphone_returns"),
    ("event/device: hot-plug", DEVICES, "test_devices_that_come_and_go_are_told"),
    ("event/error: coalesced", CONTRACT, "test_equal_errors_are_counted"),
    ("image: the last snapshot", WHOLE, "test_a_snapshot_does_not_disturb_a_recording"),
    ("what is no longer configured is cleared", SERVICE,
     "test_what_is_no_longer_configured_is_cleared_after_a_restart"),
    # commands
    ("recorder verbs", COMMANDS, "test_recorder_verbs"),
    ("daemon verbs", COMMANDS, "test_daemon_verbs"),
    ("set: plain ON and OFF, nothing else", WHOLE, "test_groups_and_the_plain_switch"),
    ("groups, replies below the device's own tree", WHOLE, "test_groups_and_the_plain_switch"),
    ("reply/<path of the command> without a response topic", COMMANDS,
     "test_start_and_stop_say_whether_anything_changed"),
    ("a response topic only below the own reply tree, 256 bytes, no wildcards; correlation data", COMMANDS,
     "test_a_response_topic_is_honoured_below_the_own_reply_tree_only"),
    ("more than 16 KiB is bad_payload", COMMANDS, "test_refusals_change_nothing"),
    ("more than 20 KiB never arrives", COMMANDS, "test_what_exceeds_the_packet_limit_never_arrives"),
    ("ten commands a second, burst 20, then rate_limited", COMMANDS,
     "test_more_than_the_rate_is_refused_and_may_be_sent_again"),
    ("the last 256 ids of ten minutes", MESSAGES, "test_dedupe_keeps_256_ids_for_ten_minutes"),
    ("a repeated id gets the stored reply and acts once", WHOLE, "test_a_repeated_command_acts_once"),
    ("issued_at with a trusted clock only", WHOLE, "test_old_commands_expire_if_the_clock_is_trusted"),
    ("start while recording, stop while inactive: ok, changed false", COMMANDS,
     "test_start_and_stop_say_whether_anything_changed"),
    ("pause, resume, split while inactive: wrong_state", DEVICES, "test_every_code_that_a_device_can_give"),
    ("duration_s", WHOLE, "test_a_duration_ends_a_recording"),
    ("commands are never retained", COMMANDS, "test_a_retained_command_is_refused_even_while_subscribed"),
    ("a retained command of the past is not run", COMMANDS, "test_a_retained_command_from_before_is_not_run"),
    ("any JSON and any bytes are a command or a refusal", MESSAGES, "test_any_json_is_a_command_or_a_refusal"),
    ("what is invalid changes nothing", "system/test_fuzz_broker.py", "test_hostile_messages"),
    # codes
    ("bad_payload, bad_args, unknown_verb, unknown_recorder, wrong_state", COMMANDS, "test_refusals_change_nothing"),
    ("device_missing, device_busy, no_space, internal", DEVICES, "test_every_code_that_a_device_can_give"),
    ("expired", WHOLE, "test_old_commands_expire_if_the_clock_is_trusted"),
    ("retained_rejected", DAEMON, "test_wrong_commands_change_nothing"),
    ("rate_limited", COMMANDS, "test_more_than_the_rate_is_refused_and_may_be_sent_again"),
    ("the list of codes is closed, each is retryable or not", MESSAGES,
     "test_every_code_has_its_retryable_and_replies_are_bounded"),
    # events
    ("a chunk is told after it has its final name", CONTRACT, "test_a_chunk_is_told_when_it_has_its_name"),
    ("events survive outages and kills, in order", "system/test_mqtt_outage.py",
     "test_every_event_of_an_outage_arrives_although_the_daemon_is_killed_twice"),
    ("events are deleted when they are acknowledged, not when they are refused", SECURE,
     "test_events_that_the_acl_forbids_stay_and_do_not_hold_up_others"),
    ("the oldest are dropped and counted", SPOOL, "test_the_oldest_are_dropped_and_counted_over_restarts"),
    ("a broker that is killed: no command acts twice, none by halves", "system/test_mqtt_kills.py",
     "test_no_command_acts_twice_and_none_by_halves"),
    # who may
    ("TLS off loopback", SECURE, "test_tls_is_on_off_loopback"),
    ("client certificates", SECURE, "test_client_certificates_name_the_device"),
    ("a device cannot speak for another", SECURE, "test_a_device_cannot_speak_for_or_command_another"),
    ("verbs can be withheld", COMMANDS, "test_verbs_can_be_withheld"),
)  # fmt: skip


@functools.cache
def functions(file: str) -> set[str]:
    tree = ast.parse((TESTS / file).read_text())
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize(("rule", "file", "test"), RULES, ids=[rule for rule, _, _ in RULES])
@pytest.mark.promise("rules-of-a-broker")
def test_every_rule_has_its_test(rule: str, file: str, test: str) -> None:
    assert test in functions(file), f"{rule}: {file} has no {test}"
