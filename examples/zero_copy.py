"""One shared buffer, many messages: two processes pass places in it, not copies of bytes.

The parent manages the shared memory as a heap. The child knows nothing of heaps: it is told where a message
lies, reads it there, and answers in place.

    python3 examples/zero_copy.py
"""

import multiprocessing
from multiprocessing import shared_memory

import bsa


def serve(name, requests, answers):
    """The child: turns messages into capitals where they lie."""
    memory = shared_memory.SharedMemory(name)
    for offset, size in iter(requests.get, None):
        memory.buf[offset : offset + size] = bytes(memory.buf[offset : offset + size]).upper()
        answers.put(size)
    memory.close()


def main():
    processes = multiprocessing.get_context("spawn")
    requests, answers = processes.SimpleQueue(), processes.SimpleQueue()
    memory = shared_memory.SharedMemory(create=True, size=1 << 20)
    child = processes.Process(target=serve, args=(memory.name, requests, answers))
    child.start()
    try:
        with bsa.Allocator(memory.buf) as heap:
            for text in ("hello", "one heap, two processes", "x" * 100_000):
                with heap.alloc_from(text.encode()) as block:
                    requests.put((block.offset, block.size))
                    answers.get()
                    print(f"{block.size:6} bytes at offset {block.offset:6}: {block[:24].decode()}")
            print("live at the end:", len(heap))
    finally:
        requests.put(None)
        child.join()
        memory.close()
        memory.unlink()


if __name__ == "__main__":
    main()
