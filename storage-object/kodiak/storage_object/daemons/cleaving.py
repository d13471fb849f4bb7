"""What the sharder does with one container's database on one device.

Every device that holds a container copies the rows of its own file to the shards, which merge them. When a majority has, the
first of them lets the container be sharded, in one transaction: from then on its shards list and take rows in its place. Each
file then moves what it still has. A file that is to lose rows loses none before a majority of the shard's files has it on disk.
"""
import collections
import contextlib
import logging
import time

from ..backend.shards import Busy, Table, begin, cut, read_message, state_of_own
from ..spans import (
    ACTIVE,
    CLEAVED,
    CREATED,
    ENABLED,
    FOUND,
    PARENT,
    SHARDED,
    SHRINKING,
    SHRUNK,
    Plan,
    Range,
    quoted,
    root_of,
    segments,
    split,
)
from .peers import Failed

LOG = logging.getLogger(__name__)
PAGE = 2000
DEFAULT = 1_000_000     # rows of a container that is to be sharded by its own setting, where the configuration says nothing
TRIES = 10              # to find a moment in which no row changes


def now():
    """A timestamp."""
    return f'{time.time():016.5f}'


class Cleaving:
    """One visit to a database.

    :param sharder: the daemon. :param node: the ring's entry of its device. :param turn: whether it is this device's turn to do
        what only one does.
    """

    def __init__(self, sharder, broker, part, digest, file, node, turn):
        self.sharder, self.broker, self.part, self.digest, self.file, self.turn = sharder, broker, part, digest, file, turn
        self.ring = sharder.server.rings.container
        primaries = self.ring.primaries(int(part))
        self.fellows = [each for each in primaries if each is not node]
        self.majority = len(primaries) // 2 + 1
        self.key = broker.key
        info = broker.info()
        self.policy, self.root = info['policy'], root_of(info)
        self.top = self.root or split(self.key)         # its root, or itself
        self.view = None                                # of a shard: the ranges of its root

    @property
    def state(self):
        """Unsharded, sharding, sharded or collapsed."""
        return self.broker.info()['sharding']

    def run(self):
        """Do what is to be done. Returns whether that was nothing, as long as the file does not change."""
        if self.root is not None and not self._known_to_root():
            return False
        if self.state in ('unsharded', 'collapsed') and self._rest():
            return self.root is None
        if self.state == 'sharding':
            self._cleave()
        if self.state == 'sharded':
            self._settle()
        return False

    # Others

    def _exchange(self):
        """Tell the fellows of the ranges, and hear theirs. The answers, None for one that has no such container."""
        message, replies = self.broker.message(), []
        for node in self.fellows:
            try:
                reply = self.sharder.ask(node, 'shards', self.part, self.digest, body={'message': message})
            except Failed as error:
                LOG.info('%s:%s/%s: %s', node['ip'], node['port'], node['device'], error)
                continue
            if reply is not None and reply['message']:
                self.broker.merge_message(reply['message'])
            replies.append(reply)
        if 1 + len(replies) < self.majority:
            raise Failed(f'too few of the servers of {self.key} answer')
        return replies

    def _agreeing(self, replies):
        """Of the answers, those of fellows that have the ranges of this epoch."""
        epoch = self.broker.table().own.epoch
        return [reply for reply in replies if reply and reply['message'] and reply['message']['own']['epoch'] == epoch]

    def _look_at(self, account, container):
        """A container's ranges as a majority of its servers has them (a :class:`Table`); None if a majority has no such one."""
        part, digest = self.ring.get_part(account, container), self.ring.hash_path(account, container)
        primaries, gone, heard = self.ring.primaries(part), 0, 0
        view, policies = Table(f'{account}/{container}', {}, '', None, ''), set()
        for node in primaries:
            with contextlib.suppress(Failed):
                reply = self.sharder.ask(node, 'shards', part, digest, body={'message': None})
                heard += 1
                gone += reply is None
                policies |= {reply['policy']} if reply is not None else set()
                if reply is not None and reply['message']:
                    view.merge_message(*read_message(reply['message']))
        if heard <= len(primaries) // 2:
            raise Failed(f'too few of the servers of {view.key} answer')
        view.policies = policies
        return None if gone > len(primaries) // 2 else view

    def deliver(self, target, rows):
        """Have a majority of a container's servers take rows. Returns ``(objects, bytes)`` that it has then."""
        account, container = split(target.name)
        part, digest = self.ring.get_part(account, container), self.ring.hash_path(account, container)
        body = {'account': account, 'container': container, 'rows': [row[:-1] for row in rows]}
        if (account, container) != self.top:
            body.update(range=target.wire(), root=quoted(*self.top), parent=quoted(*split(self.key)), policy=self.policy)
        taken, primaries = [], self.ring.primaries(part)
        for node in primaries:
            try:
                reply = self.sharder.ask(node, 'cleave', part, digest, body=body)
                if reply is not None:
                    taken.append((reply['objects'], reply['bytes']))
            except Failed as error:
                LOG.info('%s:%s/%s: %s', node['ip'], node['port'], node['device'], error)
        if len(taken) <= len(primaries) // 2:
            raise Failed(f'too few of the servers of {target.name} take rows')
        return max(taken)

    def _distribute(self, plan, rows, drop=False):
        """Deliver rows to where they belong; those that belong here stay. Whether all were delivered."""
        groups = collections.defaultdict(list)
        for row in rows:
            target = plan.find(row[1])
            if target is not None and target.name != self.key:
                groups[target].append(row)
        for target, group in groups.items():
            self.deliver(target, group)
            if drop:
                self.broker.drop(group)
            self.sharder.progress.count('moved' if drop else 'copied', len(group))
        return sum(map(len, groups.values())) == len(rows)

    def _move(self, plan, rows=None):
        """Move rows, all of them if none are given, to where they belong."""
        if rows is not None:
            self._distribute(plan, rows, drop=True)
            return
        seq = 0
        while (rows := self.broker.later(seq, PAGE)) and not self.sharder.ending.is_set():
            seq = rows[-1][-1]
            self._distribute(plan, rows, drop=True)

    def _empty(self):
        return not self.broker.later(0, 1)

    # A shard and its root

    def _known_to_root(self):
        """Take over what the root says of this shard. False if the shard is no more."""
        self.view = view = self._look_at(*self.root)
        mine = view.ranges.get(self.key) if view is not None else None
        if mine is None and view is not None and self._known_to_parent():
            return False        # it is still being filled
        if mine is None or mine.deleted:
            self._leave(view)
            return False
        info = self.broker.info()
        if self.broker.is_deleted(info):
            self.broker.update(put=now())
            self.sharder.server.updater.look(self.broker.path)
        if len(view.policies) == 1 and info['policy'] not in view.policies:
            self.policy, = view.policies
            self.broker.update(policy=self.policy)
        with self.broker.changing() as table:
            table.own = table.own.merged(table.own._replace(stamp=mine.stamp, lower=mine.lower, upper=mine.upper))
            if mine.state == SHRINKING and state_of_own(table.own) in ('unsharded', 'collapsed'):
                self._shrink(table, mine)
        return True

    def _known_to_parent(self):
        """Whether a shard that the root has is being cut up into this and others."""
        parent = root_of(self.broker.info(), PARENT)
        if parent is None or parent == self.root:
            return False
        above = self.view.ranges.get('/'.join(parent))
        if above is None or above.deleted:
            return False
        seen = self._look_at(*parent)
        mine = seen.ranges.get(self.key) if seen is not None else None
        return mine is not None and not mine.deleted

    def _leave(self, view):
        """The root has no such shard (any more): what is here goes where it belongs, then the shard goes."""
        if view is None:
            if not self._empty():
                self.sharder.progress.count('without root')
                return
        elif self.state == 'sharded':
            self._drop_copied()
            self._move(self.broker.plan())
        else:
            own = view.own
            if state_of_own(own) == 'sharded':
                plan = Plan(segments([each for each in view.others if not each.deleted]))
            else:
                plan = Plan([('', '', own)])
            self._move(plan)
        if self._empty() and not self.broker.is_deleted(self.broker.info()):
            self.broker.update(delete=now())
            self.sharder.server.updater.look(self.broker.path)
            self.sharder.progress.count('left')

    def _shrink(self, table, mine):
        """Begin to give everything to the range that covers this one, or to the root if there is no other."""
        others = [each for each in self.view.others if not each.deleted and each.name != self.key]
        if others:
            takers = [each for each in others if each.state == ACTIVE and each.covers(mine)]
            if not takers:
                raise Failed(f'nobody takes what {self.key} has')
            taker = max(takers, key=lambda each: each.stamp)
        else:
            taker = Range(self.view.key, mine.state_stamp)
        begin(table, [taker._replace(state=CREATED, state_stamp=mine.state_stamp)], mine.state_stamp, SHRINKING)

    # Beginning

    def _rest(self):
        """It has its rows itself. Whether it stays so."""
        own, view = self.broker.table().own, self.view
        if view is not None and state_of_own(view.own) == 'sharded' and (rows := self.broker.outside(own.lower, own.upper)):
            self._move(Plan(segments([each for each in view.others if not each.deleted])), rows)
        conf, info = self.sharder.conf.storage, self.broker.info()
        chosen = 'true' if self.root is not None else info['metadata'].get(ENABLED, ('',))[0].lower()
        limit = 0 if chosen == 'false' else conf.shard_threshold or (DEFAULT if chosen == 'true' else 0)
        if not limit or info['rows'] < limit or own.state != ACTIVE:
            return True
        if not self.turn:
            return False
        self._exchange()            # perhaps they have begun
        if self.state in ('unsharded', 'collapsed'):
            stamp = now()
            uppers = self.broker.points(conf.shard_size or limit // 2, own.lower, own.upper)
            if not uppers:
                return True
            with self.broker.changing() as table:
                begin(table, cut(self.key, self.top, uppers, table.own, stamp), stamp)
            self.sharder.progress.count('begun')
        return False

    # Copying

    def _cleave(self):
        if self.turn:
            self._stretch()
            if 1 + len(self._agreeing(self._exchange())) < self.majority:
                raise Failed(f'too few of the servers of {self.key} have its ranges')
            self._create()
        if self.state != 'sharding' or any(each.state == FOUND for each in self._ranges()):
            return
        if self._copy() and self.turn:
            self._switch()

    def _ranges(self):
        return sorted((each for each in self.broker.table().others if not each.deleted), key=lambda each: each.lower)

    def _stretch(self):
        """Its bounds may have grown since it was cut up."""
        ranges, own = self._ranges(), self.broker.table().own
        if not ranges or own.state == SHRINKING:
            return
        first, last, stamp = ranges[0], ranges[-1], now()
        with self.broker.changing() as table:
            if own.lower < first.lower:
                table.merge([first._replace(stamp=stamp, lower=own.lower)])
            if last.upper and (not own.upper or last.upper < own.upper):
                table.merge([table.ranges[last.name]._replace(stamp=stamp, upper=own.upper)])

    def _create(self):
        """Make the shards, still empty."""
        found = [each for each in self._ranges() if each.state == FOUND]
        if self.state != 'sharding' or not found:
            return
        for each in found:
            self.deliver(each, [])
        self._set(found, CREATED)
        self.sharder.progress.count('created', len(found))
        self._exchange()

    def _set(self, ranges, state):
        with self.broker.changing() as table:
            for each in ranges:
                if table.ranges[each.name].state < state:
                    table.merge([table.ranges[each.name]._replace(state=state, state_stamp=now())])

    def _copy(self):
        """Copy rows to the shards, from where it was left. Whether all are there."""
        table = self.broker.table()
        context, epoch = table.context, table.own.epoch
        if context is None or context['epoch'] != epoch:
            # What changes from now on is copied after the rest. What no shard is to have stays: "left".
            context = {'epoch': epoch, 'seq': self.broker.info()['seq'], 'done': None, 'deleted': 0, 'after': '', 'copied': 0,
                       'complete': False, 'left': bool(self.broker.outside(table.own.lower, table.own.upper, 1))}
        ranges, progress, started = self._ranges(), self.sharder.progress, context['copied']
        plan = Plan(segments(ranges, table.own.lower, table.own.upper))
        progress.total += max(0, self.broker.info()['rows'] - started)
        for each in ranges if not context['complete'] else ():
            if context['done'] is not None and (not context['done'] or (each.upper and each.upper <= context['done'])):
                continue
            while context['deleted'] < 2:
                rows = self.broker.span(max(each.lower, table.own.lower), each.upper, context['deleted'], context['after'], PAGE)
                if rows:
                    context['left'] |= not self._distribute(plan, rows)
                    context.update(after=rows[-1][1], copied=context['copied'] + len(rows))
                    progress.done += len(rows)
                if len(rows) < PAGE:
                    context.update(deleted=context['deleted'] + 1, after='')
                self.broker.save_context(context)
                self.sharder.note(self.key, context['copied'], self.broker.info()['rows'])
                if self.sharder.ending.is_set() or context['copied'] - started >= self.sharder.conf.storage.shard_batch:
                    self.sharder.again = True
                    return False
            context.update(done=each.upper, deleted=0, after='')
            if self.turn:
                self._set([each], CLEAVED)
            self.broker.save_context(context)
            progress.count('cleaved')
        context['complete'] = True
        self._copy_changes(plan, context)
        return True

    def _copy_changes(self, plan, context):
        """Copy what has changed since."""
        while rows := self.broker.later(context['seq'], PAGE):
            context['left'] |= not self._distribute(plan, rows)
            context['seq'] = rows[-1][-1]
            self.broker.save_context(context)
        self.broker.save_context(context)

    def _switch(self):
        """Let the container be sharded, if a majority of its servers has copied its rows."""
        ready = [reply for reply in self._agreeing(self._exchange()) if reply['copied']]
        table = self.broker.table()
        if 1 + len(ready) < self.majority or not table.promised:
            return
        ranges, context = self._ranges(), table.context
        plan = Plan(segments(ranges, table.own.lower, table.own.upper))
        asked = now()
        counts = {each.name: self.deliver(each, []) for each in ranges}
        if ranges[0].name == '/'.join(self.top):
            self._copy_changes(plan, context)
            self._tell_root(self._collapse())
        for attempt in range(TRIES):
            self._copy_changes(plan, context)
            with contextlib.suppress(Busy), self.broker.changing(context['seq'] if attempt < TRIES - 1 else None) as table:
                stamp = now()
                for each in ranges:
                    objects, size = counts[each.name]
                    table.merge([each._replace(state=ACTIVE, state_stamp=stamp, objects=objects, bytes=size, meta_stamp=asked)])
                table.own = table.own._replace(state=SHRUNK if table.own.state == SHRINKING else SHARDED, state_stamp=stamp)
                break
        self.sharder.progress.count('sharded')
        self.sharder.server.updater.look(self.broker.path)
        self._exchange()

    # After that

    def _settle(self):
        """It is sharded: rows that are here still go to the shards."""
        if self.root is not None:
            if self.turn:
                self._tell_root(self._result())
            return                      # the root has it as deleted then, and this leaves
        ranges = self._ranges()
        if not any(each.state == SHRINKING for each in ranges) or len(ranges) > 1:      # (or else they are on their way to here)
            self._drop_copied()
            self._move(self.broker.plan())
        digest = self.broker.info()['shards']
        if self.turn and self.sharder.told.get(self.file) != digest and len(self._exchange()) == len(self.fellows):
            self.sharder.told[self.file] = digest
        if self.turn and not self.broker.is_deleted(self.broker.info()):
            self._choose_small(ranges)

    def _drop_copied(self):
        """Let go of the rows that were copied before it was sharded."""
        table = self.broker.table()
        context = table.context
        if not context or not context['complete'] or context['epoch'] != table.own.epoch or context['left'] or self._empty():
            return
        if not self.broker.drop_all(context['seq']):
            while rows := [row for row in self.broker.later(0, PAGE) if row[-1] <= context['seq']]:
                self.broker.drop(rows)

    def _result(self):
        """What the root is to know of a shard that is sharded itself: what it has in its place."""
        table, stamp = self.broker.table(), now()
        ranges = [each for each in self._ranges() if each.name != '/'.join(self.root)]
        return [*ranges, table.own._replace(stamp=stamp, deleted=1, state=table.own.state, state_stamp=stamp, epoch='')]

    def _collapse(self):
        """What the root is to know when the last shard gives it everything."""
        stamp, own = now(), self.broker.table().own
        return [self.view.own._replace(state=ACTIVE, state_stamp=stamp),
                own._replace(stamp=stamp, deleted=1, state=SHRUNK, state_stamp=stamp, epoch='')]

    def _tell_root(self, ranges):
        told = self.sharder.server.updater.tell_root(*self.root, ranges)
        if sum(status // 100 == 2 for status in told) <= len(told) // 2:
            raise Failed(f'too few of the servers of {"/".join(self.root)} take its ranges')

    def _choose_small(self, ranges):
        """Mark shards that are to give their rows to a neighbour."""
        conf = self.sharder.conf.storage
        size = conf.shard_size or (conf.shard_threshold or DEFAULT) // 2
        small = size * conf.shard_shrink // 100
        busy, pairs, taken = [each for each in ranges if each.state != ACTIVE], [], set()
        if len(ranges) == 1 and not busy and ranges[0].objects < small:
            pairs.append((ranges[0], None))
        for place, each in enumerate(ranges):
            for other in (ranges[place - 1] if place else None, ranges[place + 1] if place + 1 < len(ranges) else None):
                if other is None or each.objects >= small or each.objects + other.objects > size or {each, other} & taken or any(
                        one.meets(each) or one.meets(other) for one in busy):
                    continue
                pairs.append((each, other))
                taken |= {each, other}
                break
        if not pairs:
            return
        self._exchange()
        if self._ranges() != ranges:
            return                      # something new: at the next visit
        stamp = now()
        with self.broker.changing() as table:
            for each, other in pairs:
                table.merge([each._replace(state=SHRINKING, state_stamp=stamp)])
                if other is not None:
                    lower = min(each.lower, other.lower)
                    upper = '' if not each.upper or not other.upper else max(each.upper, other.upper)
                    table.merge([other._replace(stamp=stamp, lower=lower, upper=upper)])
                self.sharder.progress.count('shrinking')
        self._exchange()


