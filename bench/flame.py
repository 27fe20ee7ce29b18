#!/usr/bin/env python3
"""Draws a flame graph: reads the text of `perf script` on standard input, writes an SVG on standard output.

Width is samples, one tower a kind of thread, hottest first; frames under 0.2 % are left out. With `--top`, writes as
text the share of each leaf function and of each function with all it calls. Type arguments, hashes, offsets and paths
of object files are dropped, so that nothing of the machine is in the picture.
"""

import re
import sys
from collections import Counter
from html import escape
from itertools import dropwhile

WIDTH, ROW, LEAST_SHARE = 1200, 17, 0.002
# What is outermost in every thread and says nothing.
OUTSIDE = re.compile(r"\[unknown\]$|_*clone\d?$|_start$|main$|start_thread$|__libc_start|<?std::|__rust|"
                     r"core::ops::function|<alloc::boxed::Box")


def plain(symbol):
    """A symbol without its offset, hash, and type arguments."""
    symbol = re.sub(r"\+0x[0-9a-f]+$", "", symbol)
    symbol = re.sub(r"::h[0-9a-f]{16}", "", symbol)
    before = None
    while before != symbol:
        before, symbol = symbol, re.sub(r"::<[^<>]*>", "", symbol)
    return symbol


def stacks(lines):
    """Counts the stacks of `perf script`, each a tuple from the thread's name to the leaf."""
    counts, thread, frames = Counter(), None, []
    for line in lines:
        if not line.strip():
            if thread:
                inner = dropwhile(OUTSIDE.match, reversed(frames))
                counts[(thread, *inner)] += 1
            thread, frames = None, []
        elif not line[0].isspace():
            thread = re.sub(r"-\d+$", "", line.split()[0])
        elif thread:
            frame = re.match(r"\s*[0-9a-f]+ (.*) \(([^()]*)\)$", line)
            if frame:
                frames.append(plain(frame.group(1)))
    return counts


def rectangles(counts, total):
    """Yields (depth, first sample, samples, name) of every frame that is wide enough to see."""
    def walk(level, depth, left):
        groups = Counter()
        for stack, count in level.items():
            if len(stack) > depth:
                groups[stack[depth]] += count
        for name, count in groups.most_common():
            if count / total >= LEAST_SHARE:
                yield depth, left, count, name
                inner = {stack: n for stack, n in level.items() if len(stack) > depth and stack[depth] == name}
                yield from walk(inner, depth + 1, left)
            left += count
    yield from walk(counts, 0, 0)


def svg(counts):
    total = sum(counts.values())
    frames = list(rectangles(counts, total))
    height = (max(depth for depth, *_ in frames) + 3) * ROW
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" '
           f'font-size="11"><rect width="{WIDTH}" height="{height}" fill="#ffffff"/>'
           f'<text x="6" y="13">{total} samples of CPU time; a frame stands on its caller; hover for shares</text>']
    for depth, left, count, name in frames:
        x, wide, y = left / total * WIDTH, count / total * WIDTH, height - (depth + 1) * ROW
        shade = 190 + sum(name.encode()) % 50
        colour = f"#ff{shade:02x}60" if depth else "#a0c8f0"
        room = int(wide / 6.2)
        short = name.removeprefix("millrace::")
        label = short if len(short) <= room else short[:max(room - 1, 0)] + "…"
        text = f'<text x="{x + 2:.1f}" y="{y + 12}">{escape(label)}</text>' if room >= 4 else ""
        out.append(f'<g><title>{escape(name)}: {count / total:.1%}</title><rect x="{x:.1f}" y="{y}" width="{wide:.1f}" '
                   f'height="{ROW - 1}" fill="{colour}"/>{text}</g>')
    return "\n".join(out + ["</svg>\n"])


def top(counts, most=45):
    total = sum(counts.values())
    leaf, whole = Counter(), Counter()
    for stack, count in counts.items():
        leaf[f"{stack[0]}  {stack[-1]}"] += count
        for frame in set(stack[1:]) | {stack[0]}:
            whole[f"{stack[0]}  {frame}"] += count
    for title, table in (("leaf", leaf), ("with what it calls", whole)):
        yield f"\n{title}, of {total} samples"
        yield from (f"{count / total:7.2%}  {name}" for name, count in table.most_common(most))


if __name__ == "__main__":
    folded = stacks([*sys.stdin, "\n"])
    if not folded:
        sys.exit("no stacks on standard input: `perf script -i perf.data | bench/flame.py > flame.svg`")
    print("\n".join(top(folded)) if "--top" in sys.argv[1:] else svg(folded), end="")
