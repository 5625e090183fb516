"""What can't run on Windows of the unit tests that run there (tests/windows), and why: by a test's id, as it begins."""

from __future__ import annotations

MODES = "Windows has access lists (test_acl.py), not POSIX modes"
LINUX = "it is Linux' own"
POSIX = "it is POSIX' own: paths, links, signals or error texts"
LINK = "symbolic links under Wine lead nowhere when they are resolved"
HINTS = "the next step is another one on Windows, or spelled otherwise"

REASONS = {
    "tests/unit/test_config.py::test_what_is_hidden_from_machines_is_no_option": POSIX,
    "tests/unit/test_files.py::test_mode_is_the_one_asked_for": MODES,
    "tests/unit/test_files.py::test_folders_above_are_private_too": MODES,
    "tests/unit/test_files.py::test_a_file_that_another_program_has_open_is_written_into": MODES,
    "tests/unit/test_files.py::test_the_new_file_is_on_the_disk_before_it_takes_the_name": POSIX,
    "tests/unit/test_paths.py::test_the_store_is_in_the_home_folder_unless_moved": POSIX,
    "tests/unit/test_paths.py::test_images_may_lie_elsewhere": POSIX,
    "tests/unit/test_paths.py::test_one_folder_has_many_spellings": LINK,
    "tests/unit/test_run.py::test_output_that_is_no_utf8_doesnt_hurt": POSIX,
    "tests/unit/test_run.py::test_a_missing_folder_isnt_a_missing_tool": POSIX,
    "tests/unit/test_run.py::test_a_streamed_command_writes_where_we_do": POSIX,
    "tests/unit/test_run.py::test_a_detached_process_has_its_own_session_and_no_input": POSIX,
    "tests/unit/test_run.py::test_which_takes_the_first_that_is_there": POSIX,
    "tests/unit/test_run.py::test_a_held_command_runs_as_long_as_the_block": POSIX,
    "tests/unit/test_run.py::test_a_held_command_that_ends_at_once_is_an_error": POSIX,
    "tests/unit/test_shell_encoding.py::test_elsewhere_a_path_is_bytes": POSIX,
    "tests/unit/test_store.py::test_a_machine_is_there_when_its_block_ends_well": POSIX,
    "tests/unit/test_store.py::test_files_are_for_their_owner_only": MODES,
    "tests/unit/test_store.py::test_the_stores_lock_is_waited_for_with_a_deadline": HINTS,
    "tests/unit/test_store.py::test_what_cant_be_read_is_damaged_and_hides_no_other": HINTS,
    "tests/unit/test_store.py::test_a_folder_that_was_moved_is_no_copy_to_remove": HINTS,
    "tests/unit/virtualbox/test_driver.py::test_check": LINUX,
    "tests/unit/virtualbox/test_host.py::test_a_capable_host": LINUX,
    "tests/unit/virtualbox/test_host.py::test_no_hardware_virtualization": LINUX,
    "tests/unit/virtualbox/test_leftovers.py::test_a_copy_of_the_folder_removes_and_changes_nothing": HINTS,
    "tests/unit/virtualbox/test_leftovers.py::test_below": LINK,
    "tests/unit/virtualbox/test_orphans.py::test_a_store_by_another_way": LINK,
    "tests/unit/virtualbox/test_share.py::test_another_folder": POSIX,
    "tests/unit/virtualbox/test_share.py::test_the_home_folder_is_shared": POSIX,
    "tests/unit/virtualbox/test_share.py::test_what_is_the_guests_own_isnt_hidden": POSIX,
    "tests/unit/virtualbox/test_vboxmanage.py::test_vboxmanage_is_found_on_path_first": POSIX,
    "tests/unit/virtualbox/test_vboxmanage.py::test_vboxmanage_is_found_in_the_app_of_macos": POSIX,
}


def why(test: str) -> str:
    """Why a test can't run there, by its id; "" when it can."""
    return next((reason for name, reason in REASONS.items() if test.startswith(name)), "")
