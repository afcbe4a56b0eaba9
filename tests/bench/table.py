"""table - what was measured, in order, as a table that is readable as text and as Markdown."""
import statistics
import sys


def percentile(values, share):
    """The smallest value that `share` of all do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


class Samples:
    """Values of one row: how many, median, p99."""

    def __init__(self, values):
        self.values = list(values)

    @property
    def n(self):
        return len(self.values)

    @property
    def median(self):
        return statistics.median(self.values)

    @property
    def p99(self):
        return percentile(self.values, 0.99)


def number(value):
    """Three digits that matter."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, int):
        return str(value)
    return "%.0f" % value if abs(value) >= 100 else "%.1f" % value if abs(value) >= 10 else "%.2f" % value


def show(title, head, rows):
    """rows: lists as long as head; the first column is text."""
    cells = [[number(v) for v in row] for row in rows]
    wide = [max(len(line[i]) for line in [list(head), *cells]) for i in range(len(head))]

    def line(values):
        return "| " + " | ".join(v.ljust(w) if not i else v.rjust(w) for i, (v, w) in enumerate(zip(values, wide))) + " |"

    print("\n%s\n\n%s" % (title, line(head)))
    print("|" + "|".join("-" * (w + 2) if not i else "-" * (w + 1) + ":" for i, w in enumerate(wide)) + "|")
    for row in cells:
        print(line(row))
    sys.stdout.flush()


def add(into, spent):
    """Collects dictionaries of numbers into one of lists."""
    for name, value in spent.items():
        into.setdefault(name, []).append(value)


def split(lists, least=0.5):
    """'lighttpd 20, api 30' out of lists of microseconds per operation; what is below `least` is left out."""
    medians = {name: statistics.median(values) for name, values in lists.items()}
    return sum(medians.values()), ", ".join("%s %s" % (n, number(v)) for n, v in medians.items() if v >= least)
