"""A catalogue of books is read, and its titles are kept. Notebook 2 asks where the memory goes.

    python3 examples/catalogue.py make FILE     # make one up: a book a line, in JSON
    python3 examples/catalogue.py whole FILE    # parse all books, then pick out the titles
    python3 examples/catalogue.py lines FILE    # parse a book, keep its title, go on to the next
    python3 examples/catalogue.py nothing FILE  # read nothing: for comparison
"""

import json
import os
import random
import sys

BOOKS = 4000
WORDS = "the a sea of night and river house last light stone song winter road garden letter".split()


def main():
    if len(sys.argv) != 3:
        print(__doc__)
        return
    how, path = sys.argv[1:]
    if how == "make":
        make(path)
    else:
        read = {"whole": titles_of_all, "lines": titles_one_by_one, "nothing": no_titles}[how]
        serve(read(path))


def make(path):
    chance = random.Random(1)
    with open(path, "w", encoding="ascii") as file:
        for number in range(BOOKS):
            book = {
                "number": number,
                "title": text(chance, 3, 12),
                "author": text(chance, 2, 3),
                "reviews": [text(chance, 3, 12) for _ in range(chance.randint(4, 11))],
            }
            file.write(json.dumps(book) + "\n")


def text(chance, least, most):
    return " ".join(chance.choices(WORDS, k=chance.randint(least, most)))


def titles_of_all(path):
    with open(path, encoding="ascii") as file:
        books = [json.loads(line) for line in file]
    return [book["title"] for book in books]


def titles_one_by_one(path):
    with open(path, encoding="ascii") as file:
        return [json.loads(line)["title"] for line in file]


def no_titles(path):
    return []


def serve(titles):
    """What a server would do for ever. It ends at once, and without tidying up."""
    characters = sum(map(len, titles))
    print(f"{len(titles):,} titles, {characters:,} characters, {resident():,} KiB of memory")
    sys.stdout.flush()
    os._exit(0)


def resident():
    """KiB of memory that the process has."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE") // 1024


if __name__ == "__main__":
    main()
