"""What is to be beaten: the peer's cost and the part of it that Kodiak may take at most.

``PEER`` holds what OpenStack's services took on a machine like ours; where the peer is measured in the same run, its own
figure of that run is used instead.
"""
#: what: (figure, the peer's value, at most this part of it (or, for rates, at least so many times))
ROWS = {
    'token by password': ('cpu_ms', 219, 1 / 4),
    'token by token': ('cpu_ms', 4.0, 1 / 5),
    'token validation': ('cpu_ms', 3.3, 1 / 5),
    'user show': ('cpu_ms', 4.2, 1 / 5),
    'users, 1,000': ('cpu_ms', 193, 1 / 10),
    'image show': ('cpu_ms', 4.4, 1 / 5),
    'images, 25': ('cpu_ms', 12, 1 / 10),
    'images, 100': ('cpu_ms', 36, 1 / 10),
    'image upload, 256 MB': ('mb_s', 220, 1.5),
    'image download, 256 MB': ('mb_s', 2697, 1.0),
    'flavors detail': ('cpu_ms', 7.5, 1 / 5),
    'server show': ('cpu_ms', 25, 1 / 10),
    'servers, 1,000': ('cpu_ms', 624, 1 / 20),
    'servers detail, 100': ('cpu_ms', 297, 1 / 20),
    'servers detail, 1,000': ('cpu_ms', 2950, 1 / 40),
    'one boot': ('cpu_ms', 720, 1 / 10),
    '50 boots at once': ('cpu_ms', 663, 1 / 10),
    'candidates of 100, limit 1000': ('cpu_ms', 40, 1 / 10),
    'candidates of 1000, limit 1000': ('cpu_ms', 145, 1 / 20),
    'candidates of 10000, limit 1000': ('cpu_ms', 994, 1 / 40),
    'claims, 1 client': ('rate', 50, 10.0),
    'claims, 8 clients': ('rate', 101, 10.0),
    'network create': ('cpu_ms', 41, 1 / 10),
    'subnet create': ('cpu_ms', 49, 1 / 10),
    'port create': ('cpu_ms', 98, 1 / 10),
    'port show': ('cpu_ms', 12, 1 / 10),
    'network show': ('cpu_ms', 20, 1 / 10),
    'ports, 1,000': ('cpu_ms', 590, 1 / 20),
    'volume create': ('cpu_ms', 199, 1 / 5),
    '50 volumes at once': ('cpu_ms', 199, 1 / 5),
    'volume show': ('cpu_ms', 9.4, 1 / 5),
    'volumes detail, 1,000': ('cpu_ms', 383, 1 / 20),
    'object PUT, 4 KiB': ('cpu_ms', 20, 1 / 3),
    'object PUT, 4 KiB, 8 clients': ('cpu_ms', 20, 1 / 3),
    'object GET, 4 KiB': ('cpu_ms', 3.4, 1 / 2),
    'object GET, 4 KiB, 8 clients': ('cpu_ms', 3.4, 1 / 2),
    'object PUT, 64 MB': ('mb_s', 180, 2.0),
    'object GET, 64 MB': ('mb_s', 270, 3.0),
    'listing of 10,000, JSON': ('cpu_ms', 167, 1 / 5),
    'listing of 10,000, plain': ('cpu_ms', 147, 1 / 5),
}
#: figures beside the CPU: what: [(figure, the peer's, part or times)]
MORE = {
    'one boot': [('post_ms', 84, 1 / 2), ('active_ms', 732, 1 / 4)],
    '50 boots at once': [('a_minute', 149, 10.0)],
    'volume create': [('post_ms', 83, 1 / 5), ('available_ms', 192, 1 / 5)],
    'object PUT, 4 KiB, 8 clients': [('rate', 92, 3.0)],
    'object GET, 4 KiB, 8 clients': [('rate', 526, 2.0)],
}


def rows():
    """``(what, figure, the peer's value, part)`` of every comparison."""
    for what, (figure, value, part) in ROWS.items():
        yield what, figure, value, part
        for more in MORE.get(what, ()):
            yield what, *more


def table(records):
    """The comparison as reStructuredText lines, and the number of figures that miss their mark."""
    ours = {(row['what'], name): value for row in records if row['impl'] == 'kodiak' for name, value in row.items()}
    theirs = {(row['what'], name): value for row in records if row['impl'] == 'peer' for name, value in row.items()}
    lines = [f'{"what":34} {"figure":10} {"peer":>10} {"at":>7} {"mark":>10} {"kodiak":>10}  ', '-' * 88]
    missed = 0
    for what, figure, value, part in rows():
        if (what, figure) not in ours:
            continue
        peer = theirs.get((what, figure), value)
        mine, mark = ours[what, figure], peer * part
        good = mine <= mark if figure.endswith('ms') else mine >= mark
        missed += not good
        source = 'run' if (what, figure) in theirs else 'known'
        lines.append(f'{what:34} {figure:10} {peer:10.2f} {source:>7} {mark:10.2f} {mine:10.2f}  {"" if good else "MISSED"}')
    return lines, missed
