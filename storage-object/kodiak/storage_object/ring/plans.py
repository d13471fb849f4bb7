"""Which device gets which replica: what a rebalance thinks with."""
import math

from .shares import EPSILON, TIERS, path_of

FREE = 0xFFFF


class Plan:
    """What each region, zone, server and device should hold, and holds while a rebalance goes on.

    A tier (a path of region, zone, server, device) whose weight stands for 1.2 replicas of each partition is to hold one or two of
    one partition, not three and not none: that is as far apart as the weights allow.

    :param builder: its table is changed. :param resting: partitions that were moved later than this stay.
    """

    def __init__(self, builder, resting, chance):
        self.builder, self.table, self.chance = builder, builder.table, chance
        self.busy = {part for part, moved in enumerate(builder.moved) if moved > resting}
        self.wanted, self.have, self.under, self.paths = {}, {}, {}, {}
        wanted = builder.wanted()
        for device in builder.live():
            number = device['id']
            path = self.paths[number] = path_of(device)
            if number in wanted:
                for tier, inner in zip(((), *path), path, strict=False):
                    self.under.setdefault(tier, {})[inner] = True
            for tier in path:
                self.wanted[tier] = self.wanted.get(tier, 0) + wanted.get(number, 0)
                self.have.setdefault(tier, 0)
        self.numbers = list(wanted)
        self.most = {tier: math.ceil(share / builder.parts - EPSILON) for tier, share in self.wanted.items()}
        self.least = {tier: math.floor(share / builder.parts + EPSILON) for tier, share in self.wanted.items()}
        self.spots = {number: [] for number in self.paths}
        for row, line in enumerate(self.table):
            for part, held in enumerate(line):
                if held != FREE:
                    self.spots[held].append((row, part))
                    self._count(held, 1)
        for spots in self.spots.values():
            chance.shuffle(spots)

    def _count(self, number, change):
        for tier in self.paths[number]:
            self.have[tier] += change

    def _others(self, row, part):
        return [line[part] for index, line in enumerate(self.table) if index != row and part < len(line) and line[part] != FREE]

    def _counts(self, others):
        counts = {}
        for number in others:
            for tier in self.paths[number]:
                counts[tier] = counts.get(tier, 0) + 1
        return counts

    def _fits(self, number, counts):
        return all(counts.get(tier, 0) < self.most[tier] for tier in self.paths[number])

    def _spares(self, number, target, counts):
        """Whether no tier holds fewer than it must of a partition when a device's replica (not in ``counts``) goes to another."""
        there = self.paths[target]
        return all(counts.get(tier, 0) >= self.least[tier] or tier in there for tier in self.paths[number])

    def _may(self, number, target, counts):
        """Whether a replica may go from one device to another."""
        return self._fits(target, counts) and self._spares(number, target, counts)

    def _needed(self, number, target, counts):
        """Whether a replica is wanted more where one device is than where another is."""
        here = self.paths[number]
        return any(counts.get(tier, 0) < self.least[tier] and tier not in here for tier in self.paths[target])

    def _surplus(self, number):
        tier = self.paths[number][-1]
        return self.have[tier] - self.wanted[tier]

    def _full(self, number):
        tier = self.paths[number][-1]
        return self.have[tier] > math.ceil(self.wanted[tier] - EPSILON)

    # Placing what has no device

    def place(self):
        """Give every replica that has none a device. Returns where they are: (row, partition)."""
        homeless = [(row, part) for row, line in enumerate(self.table) for part, held in enumerate(line) if held == FREE]
        self.chance.shuffle(homeless)
        placed = set()
        for row, part in homeless:
            counts = self._counts(self._others(row, part))
            number = self._within((), counts, True)
            if number is None:
                number = self._within((), counts, False)
            self._put(row, part, number)
            placed.add((row, part))
        self.busy |= {part for _, part in placed}
        return placed

    def _within(self, tier, counts, strict):
        if len(tier) == len(TIERS):
            return tier[-1]
        room = [inner for inner in self.under.get(tier, ())
                if counts.get(inner, 0) < (self.most[inner] if strict or len(inner) == len(TIERS) else math.inf)]
        # Those that must have one; then the hungriest, so that all come to their share together and none is left with partitions
        # that it cannot take.
        room.sort(key=lambda inner: (counts.get(inner, 0) >= self.least[inner] if strict else counts.get(inner, 0),
                                     self.have[inner] - self.wanted[inner], self.chance.random()))
        for inner in room:
            found = self._within(inner, counts, strict)
            if found is not None:
                return found
        return None

    def _put(self, row, part, number):
        held = self.table[row][part]
        if held != FREE:
            self._count(held, -1)
        self.table[row][part] = number
        self.spots[number].append((row, part))
        self._count(number, 1)

    # Moving what is badly placed

    def improve(self):
        """Move apart what is nearer than it must be, then from full devices to hungry ones. Returns the spots that moved."""
        moved = set()
        for number in list(self.paths):
            for row, part in self._movable(number):
                others = self._others(row, part)
                counts = self._counts(others)
                target = self._within((), counts, True)
                if target is not None and (not self._fits(number, counts) or (
                        self._needed(number, target, counts) and self._spares(number, target, counts))):
                    self._move(row, part, target, moved)
        for number in sorted(self.paths, key=self._surplus, reverse=True):
            self._shed(number, moved)
        for number in sorted(self.numbers, key=self._surplus):
            self._feed(number, moved)
        return moved

    def _movable(self, number):
        self.spots[number] = [spot for spot in self.spots[number] if self.table[spot[0]][spot[1]] == number]
        return [spot for spot in self.spots[number] if spot[1] not in self.busy]

    def _move(self, row, part, target, moved):
        self._put(row, part, target)
        self.busy.add(part)
        moved.add((row, part))

    def _hungry(self):
        return sorted((number for number in self.numbers if self._surplus(number) <= -EPSILON and not self._full(number)),
                      key=self._surplus)

    def _shed(self, number, moved):
        if not self._full(number):
            return
        hungry = self._hungry()
        for row, part in self._movable(number):
            counts = self._counts(self._others(row, part))
            target = next((each for each in hungry if self._may(number, each, counts)), None)
            if target is not None:
                self._move(row, part, target, moved)
                if not self._full(number):
                    return
                hungry = self._hungry()
        self._shed_by_two(number, hungry, moved)

    def _shed_by_two(self, number, hungry, moved):
        """Where no hungry device can take what a full one holds: a third takes it, and gives up something that one can take."""
        for row, part in self._movable(number):
            counts = self._counts(self._others(row, part))
            for middle in self.numbers:
                if middle == number or not self._may(number, middle, counts):
                    continue
                found = self._passed_on(middle, part, hungry)
                if found is not None:
                    (second_row, second_part), target = found
                    self._move(row, part, middle, moved)
                    self._move(second_row, second_part, target, moved)
                    hungry = self._hungry()
                    break
            if not hungry or not self._full(number):
                return

    def _passed_on(self, middle, first, hungry):
        for row, part in self._movable(middle)[:64]:
            if part == first:
                continue
            counts = self._counts(self._others(row, part))
            target = next((each for each in hungry if each != middle and self._may(middle, each, counts)), None)
            if target is not None:
                return (row, part), target
        return None

    def _feed(self, number, moved):
        if self._surplus(number) > -1:
            return
        for giver in sorted(self.paths, key=self._surplus, reverse=True):
            if self._surplus(number) > -1 or self._surplus(giver) <= EPSILON:
                return
            for row, part in self._movable(giver):
                if self._surplus(giver) <= EPSILON or self._surplus(number) > -1:
                    break
                if self._may(giver, number, self._counts(self._others(row, part))):
                    self._move(row, part, number, moved)
