#!/bin/sh
# Records the traces of this folder: real programs at small tasks, 20 thousand to 300 thousand events
# each. Every program works on files that are made here, in a temporary folder.
#
#     tests/traces/record.sh            record all of them anew
#     tests/traces/record.sh perl git   only these
#
# Events differ a little from machine to machine (versions, locale, environment): tests count on the
# kind of load a trace is, not on its numbers. PYTHON chooses the Python that runs bsa.
set -eu

traces=$(cd "$(dirname "$0")" && pwd)
bsa=${PYTHON:-python3}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export LC_ALL=C PATH="/usr/bin:/bin:$PATH" PYTHONPATH="$traces/../..${PYTHONPATH:+:$PYTHONPATH}"
cd "$work"

record() {
    name=$1
    shift
    "$bsa" -m bsa record -o "$traces/$name.bsa" -- "$@" >/dev/null
}

# CPython compiling modules: short-lived syntax trees, then code objects that stay.
trace_python() {
    cp "$("$bsa" -c 'import shutil; print(shutil.__file__)')" module.py
    record python python3 -c 'compile(open("module.py").read(), "module.py", "exec")'
}

# CPython with four threads, each freeing what others have made.
trace_threads() {
    cat >threads.py <<'END'
import json, queue, threading

boxes = [queue.Queue() for _ in range(4)]

def work(me):
    for round in range(40):
        made = json.loads(json.dumps([{"me": me, "n": str(i * round)} for i in range(25)]))
        boxes[(me + 1) % 4].put(made)
        boxes[me].get()

threads = [threading.Thread(target=work, args=(me,)) for me in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
END
    record threads python3 -S threads.py
}

# SQLite: inserts, an index, a join, an update, in one transaction after the other.
trace_sqlite3() {
    cat >work.sql <<'END'
CREATE TABLE author(id INTEGER PRIMARY KEY, name TEXT);
CREATE TABLE book(id INTEGER PRIMARY KEY, author INTEGER, title TEXT, pages INTEGER);
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500)
INSERT INTO author SELECT i, 'author ' || hex(i * 7919) FROM n;
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000)
INSERT INTO book SELECT i, i % 500, 'title ' || hex(i * 104729), i % 911 FROM n;
CREATE INDEX by_author ON book(author, pages);
SELECT name, count(*), group_concat(title, ', ') FROM author JOIN book ON author.id = author
GROUP BY name ORDER BY sum(pages);
SELECT upper(title) FROM book ORDER BY title;
END
    i=0
    while [ $i -lt 200 ]; do
        i=$((i + 1))
        echo "UPDATE book SET pages = pages + $i WHERE author = $i;"
        echo "SELECT title FROM book WHERE id BETWEEN $i AND $i + 5;"
    done >>work.sql
    record sqlite3 sqlite3 work.db '.read work.sql'
}

# git writing patches: objects inflated, compared, printed.
trace_git() {
    git init -q repository
    i=0
    while [ $i -lt 150 ]; do
        i=$((i + 1))
        seq $i $((i + 300)) >repository/file$((i % 7))
        git -C repository add .
        git -C repository -c user.name=n -c user.email=e commit -q -m "change $i"
    done
    record git git -C repository --no-pager log -p --stat --word-diff
}

# Perl: hashes, strings, regular expressions, a sort.
trace_perl() {
    cat >words.pl <<'END'
my (%count, %places);
my $seed = 1;
for my $line (1 .. 2500) {
    my @words = map { $seed = ($seed * 1103515245 + 12345) % 2147483648; "w" . $seed % 3000 } 1 .. 8;
    my $text = join " ", @words;
    while ($text =~ /(\w+)/g) { $count{$1}++; push @{ $places{$1} }, "$line:" . pos $text; }
}
for my $word (sort { $count{$b} <=> $count{$a} || $a cmp $b } keys %count) {
    print "$word $count{$word} @{ $places{$word} }\n";
}
END
    record perl perl words.pl
}

# The C compiler proper; the program gcc only starts it, and children are not recorded.
trace_gcc() {
    i=0
    while [ $i -lt 20 ]; do
        i=$((i + 1))
        echo "struct s$i { int a, b[$i]; };"
        echo "int f$i(struct s$i *s, int n) {"
        echo "    int sum = 0;"
        echo "    for (int i = 0; i < n; i++) { if (s->b[i % $i] > i) sum += s[i].a * $i; else sum ^= i; }"
        echo "    return sum;"
        echo "}"
    done >functions.c
    record gcc "$(gcc -print-prog-name=cc1)" -quiet -O2 functions.c -o functions.s
}

for name in ${*:-python threads sqlite3 git perl gcc}; do
    trace_"$name"
done
