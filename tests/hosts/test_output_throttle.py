"""Streamed text is delayed while the event loop is late, and only then."""

import asyncio
import time

from seawall.hosts.http.exchange import OutputThrottle


async def _late() -> OutputThrottle:
    """A throttle whose event loop was blocked."""
    throttle = OutputThrottle(0.2, behind=lambda: False)
    await throttle.wait()
    await asyncio.sleep(0.03)
    time.sleep(0.1)  # noqa: ASYNC251 - this is what makes the loop late
    await asyncio.sleep(0.005)
    return throttle


async def test_no_delay_while_the_loop_is_on_time() -> None:
    throttle = OutputThrottle(0.2, behind=lambda: False)
    await throttle.wait()
    await asyncio.sleep(0)
    delayed = asyncio.ensure_future(throttle.wait())
    await asyncio.sleep(0)
    assert delayed.done()


async def test_text_is_delayed_while_the_loop_is_late_up_to_the_maximum() -> None:
    throttle = await _late()
    assert 0 < throttle.delay <= 0.2
    delayed = asyncio.ensure_future(throttle.wait())
    await asyncio.sleep(0)
    assert not delayed.done()
    await delayed


async def test_text_is_delayed_while_turns_wait_for_the_processor() -> None:
    waiting = [True]
    throttle = OutputThrottle(0.2, behind=lambda: waiting[0])
    await throttle.wait()
    await asyncio.sleep(0.05)
    assert throttle.delay == 0.2
    delayed = asyncio.ensure_future(throttle.wait())
    await asyncio.sleep(0)
    assert not delayed.done()
    waiting[0] = False
    await delayed
    await asyncio.sleep(0.7)
    assert throttle.delay == 0.0


async def test_it_recovers_and_forgets_cancelled_waiters() -> None:
    throttle = await _late()
    left = asyncio.ensure_future(throttle.wait())
    await asyncio.sleep(0)
    left.cancel()
    async with asyncio.timeout(10):
        while throttle.delay:  # noqa: ASYNC110 - the decay of the lag has no event
            await asyncio.sleep(0.02)
    await throttle.wait()
    assert left.cancelled()


async def test_it_can_be_switched_off() -> None:
    throttle = OutputThrottle(0.0, behind=lambda: True)
    await throttle.wait()
    time.sleep(0.1)  # noqa: ASYNC251 - see above
    await asyncio.sleep(0.05)
    assert throttle.delay == 0.0
    await throttle.wait()
