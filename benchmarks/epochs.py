"""The clock of epochs that take turns with a peer's."""

import time
from collections.abc import Callable


def timed(after_epoch: Callable[[], None]) -> tuple[list[float], Callable]:
    """Processor seconds of each epoch, filled by the `on_block` that comes with them.

    What `after_epoch` takes, such as a turn of the peer, is not in it.
    """
    seconds, began = [], time.process_time()

    def on_block(*_):
        nonlocal began
        seconds.append(time.process_time() - began)
        after_epoch()
        began = time.process_time()

    return seconds, on_block
