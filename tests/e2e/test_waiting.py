"""Several visitors, one model at a time: whoever waits is told how many come before, sees nothing old, may leave."""

import time

import pytest
from gradio_client import Client
from playwright.sync_api import Page, expect

pytestmark = pytest.mark.e2e


SLOW = 3.0
"""Seconds per token: whoever is first stays at work until stopped."""


@pytest.fixture(autouse=True)
def at_work_for_long(slowly) -> None:
    slowly["seconds"] = SLOW


def says(page: Page, words: str) -> None:
    expect(page.get_by_role("status").filter(has_text=words)).to_be_visible()


def generate(page: Page) -> None:
    page.get_by_role("button", name="Continue").click()


def test_those_who_wait_are_told_who_comes_before_move_up_and_may_leave(open_page, tiny, slowly):
    first = open_page(f"/compare?run={tiny}&lang=en")
    generate(first)
    says(first, "Writing: ")
    second = open_page(f"/routing?run={tiny}&text=en")
    second.get_by_text("Your own text", exact=True).click()
    second.get_by_label("Your text, in any language").fill("A text that waits.")
    second.get_by_role("button", name="Trace this text").click()
    says(second, "Waiting: 1 before you.")
    expect(second.locator("#lpr-text .lpr-strip")).to_have_count(0)
    third = open_page(f"/compare?run={tiny}&lang=es")
    generate(third)
    says(third, "Waiting: 2 before you.")
    expect(third.locator(".lpr-said")).to_have_count(0)
    second.get_by_role("button", name="Cancel").click()
    says(second, "Cancelled; nothing was traced.")
    says(third, "Waiting: 1 before you.")
    third.get_by_role("button", name="Stop").click()
    says(third, "Stopped; nothing was written.")
    generate(third)
    says(third, "Waiting: 1 before you.")
    first.get_by_role("button", name="Stop").click()
    slowly["seconds"] = 0
    says(third, "Done in")
    expect(third.locator(".lpr-said")).to_have_count(2)


def test_a_visitor_who_closes_the_page_leaves_the_line(open_page, tiny, slowly):
    first, second, third = (open_page(f"/compare?run={tiny}&lang=en") for _ in range(3))
    generate(first)
    says(first, "Writing: ")
    generate(second)
    says(second, "Waiting: 1 before you.")
    generate(third)
    says(third, "Waiting: 2 before you.")
    second.close()
    says(third, "Waiting: 1 before you.")
    first.get_by_role("button", name="Stop").click()
    slowly["seconds"] = 0
    says(third, "Done in")


def test_another_text_gives_up_the_tracing_and_shows_what_was_chosen(open_page, tiny, slowly):
    first = open_page(f"/compare?run={tiny}&lang=en")
    generate(first)
    says(first, "Writing: ")
    page = open_page(f"/routing?run={tiny}&text=own")
    page.get_by_label("Your text, in any language").fill("A text that waits.")
    page.get_by_role("button", name="Trace this text").click()
    says(page, "Waiting: 1 before you.")
    page.get_by_text("Greek", exact=True).first.click()
    expect(page.locator("#lpr-text .lpr-text")).to_have_attribute("lang", "el")
    first.get_by_role("button", name="Stop").click()
    slowly["seconds"] = 0
    says(first, "Stopped")
    expect(page.locator("#lpr-text .lpr-text")).to_have_attribute("lang", "el")
    expect(page.get_by_role("status").filter(has_text="before you")).to_have_count(0)


def test_a_program_is_told_in_its_job_where_it_stands(open_page, address, tiny, slowly):
    first = open_page(f"/compare?run={tiny}&lang=en")
    generate(first)
    says(first, "Writing: ")
    client = Client(address, verbose=False)
    job = client.submit(tiny, "A sentence.", "en", api_name="/trace_text")
    until, told = time.monotonic() + 30, None
    while told is None and time.monotonic() < until:
        told = job.status().log
        time.sleep(0.02)
    assert told is not None and told[0] == "Waiting: 1 before you."
    first.get_by_role("button", name="Stop").click()
    slowly["seconds"] = 0
    assert job.result(timeout=60)["tokens"]
