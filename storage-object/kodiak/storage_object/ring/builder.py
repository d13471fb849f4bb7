"""Making rings: devices by weight, replicas far from each other, and as little moved as possible.

A builder file is JSON: what a ring file says, and when each partition was last moved.
"""
import base64
import json
import math
import os
import random
import secrets
import time

from . import file, plans, shares

FREE = plans.FREE


class Refused(ValueError):
    """A change that makes no sense; the message says why."""


class Builder:
    """A ring in the making.

    :param part_power: there are 2 to the power of this many partitions, for good. :param replicas: may be a fraction.
    :param min_part_hours: a partition is moved no more often than this.
    :param overload: a device may hold so much more than its weight stands for (0.1: a tenth) where that keeps replicas apart.
    """

    def __init__(self, part_power, replicas, min_part_hours, salt=None, overload=0.0):
        if not 1 <= part_power <= 24:
            raise Refused('The part power must be from 1 to 24.')
        self.part_power = part_power
        self.set_replicas(replicas)
        self.set_min_part_hours(min_part_hours)
        self.set_overload(overload)
        self.parts = 1 << part_power
        self.devices, self.version = [], 0
        self.salt = salt or secrets.token_bytes(16)
        self.table = []
        self.moved = [0] * self.parts

    # Numbers

    def set_replicas(self, replicas):
        """Change how many replicas there are; of some partitions one more, where it is a fraction."""
        if not 1 <= replicas < 1000:
            raise Refused('There must be at least one replica.')
        self.replicas = replicas

    def set_min_part_hours(self, hours):
        """Change how often a partition may be moved."""
        if hours < 0:
            raise Refused('The min-part-hours are 0 or more.')
        self.min_part_hours = hours

    def set_overload(self, overload):
        """Change how much more than its weight stands for a device may hold."""
        if not 0 <= overload < math.inf:
            raise Refused('The overload is 0 or more.')
        self.overload = overload

    # Devices

    def add(self, region, zone, ip, port, device, weight, meta=''):
        """Add a device; returns its id."""
        if weight < 0:
            raise Refused('A weight is 0 or more.')
        if any(have and (have['ip'], have['port'], have['device']) == (ip, port, device) for have in self.devices):
            raise Refused(f'{ip}:{port}/{device} is in the ring already.')
        number = next((index for index, have in enumerate(self.devices) if have is None), len(self.devices))
        if number >= FREE:
            raise Refused('There are too many devices.')
        made = {'id': number, 'region': region, 'zone': zone, 'ip': ip, 'port': port, 'device': device, 'weight': float(weight),
                'replication_ip': ip, 'replication_port': port, 'meta': meta}
        self.devices[number:number + 1] = [made]
        return number

    def set_weight(self, number, weight):
        """Change a device's weight."""
        if weight < 0:
            raise Refused('A weight is 0 or more.')
        self._device(number)['weight'] = float(weight)

    def remove(self, number):
        """Take a device out: its partitions go elsewhere at the next rebalance, however lately they were moved."""
        self._device(number)
        self.devices[number] = None
        for row in self.table:
            for part, held in enumerate(row):
                if held == number:
                    row[part] = FREE

    def _device(self, number):
        if not 0 <= number < len(self.devices) or self.devices[number] is None:
            raise Refused(f'There is no device {number}.')
        return self.devices[number]

    def live(self):
        """The devices that are there."""
        return [device for device in self.devices if device is not None]

    # Rebalancing

    def weighed(self):
        """``{device id: replicas of partitions that its weight stands for}``; no device holds a partition twice."""
        return shares.by_weight(self.live(), self.parts, sum(len(row) for row in self._shape()))

    def wanted(self):
        """``{device id: replicas of partitions that it is to hold}``: by weight, but for the overload."""
        weighed = self.weighed()
        return shares.apart(self.live(), self.parts, weighed, self.overload) if self.overload and weighed else weighed

    def _shape(self):
        whole = int(self.replicas)
        sizes = [self.parts] * whole
        if self.replicas > whole:
            sizes.append(int(self.parts * (self.replicas - whole)))
        return [range(size) for size in sizes]

    def rebalance(self, now=None, seed=None):
        """Give every replica a device. Returns how many were placed or moved.

        Replicas on devices that went are placed anew; devices with too much give up what they have too much, and replicas
        that are nearer to each other than they must be are moved apart, if their partition was not moved lately. Of a
        partition at most one replica is moved at a time: after a large change it takes several rebalances.
        """
        if sum(device['weight'] > 0 for device in self.live()) < math.ceil(self.replicas):
            raise Refused(f'{math.ceil(self.replicas)} devices with a weight are needed, one for each replica.')
        now, chance = now if now is not None else time.time(), random.Random(seed)
        self.table = [[self.table[row][part] if row < len(self.table) and part < len(self.table[row]) else FREE for part in parts]
                      for row, parts in enumerate(self._shape())]
        plan = plans.Plan(self, now - self.min_part_hours * 3600, chance)
        moved = plan.place()
        if len(moved) == sum(map(len, self.table)):
            while plan.improve():           # nothing is stored yet: partitions move as often as they like
                plan.busy = set()
        else:
            moved |= plan.improve()
        for _, part in moved:
            self.moved[part] = now
        self.version += 1
        return len(moved)

    def held(self, part):
        """The ids of the devices that have a partition."""
        return [row[part] for row in self.table if part < len(row) and row[part] != FREE]

    def balance(self):
        """How far the device that is farthest from what its weight stands for is from it, in percent."""
        wanted, have = self.weighed(), {}
        for row in self.table:
            for held in row:
                have[held] = have.get(held, 0) + 1
        return max((abs(have.get(number, 0) / share - 1) * 100 for number, share in wanted.items() if share), default=0.0)

    def near(self):
        """``{tier: partitions}`` with more replicas in one region, zone, server or on one device than the number of these calls
        for, whatever their weights.
        """
        weighed = self.weighed()
        share = {}
        for number, amount in (shares.apart(self.live(), self.parts, weighed, math.inf) if weighed else {}).items():
            for tier in shares.path_of(self.devices[number]):
                share[tier] = share.get(tier, 0) + amount
        most = {tier: math.ceil(amount / self.parts - shares.EPSILON) for tier, amount in share.items()}
        found = dict.fromkeys(shares.TIERS, 0)
        for part in range(self.parts if self.table else 0):
            paths = [shares.path_of(self.devices[number]) for number in self.held(part)]
            for depth, name in enumerate(shares.TIERS):
                held = [path[depth] for path in paths]
                found[name] += any(held.count(tier) > most.get(tier, 0) for tier in set(held))
        return found

    def dispersion(self):
        """Percent of partitions with replicas that are nearer to each other than the numbers of regions, zones, servers and
        devices call for.
        """
        return max(self.near().values()) * 100 / self.parts

    def validate(self):
        """What is wrong, as sentences."""
        found = []
        for part in range(self.parts if self.table else 0):
            held = [row[part] for row in self.table if part < len(row)]
            if FREE in held:
                found.append(f'Partition {part} lacks a device.')
            if len(held) != len(set(held)):
                found.append(f'Partition {part} is twice on one device.')
        return found or ([] if self.table else ['The ring has not been balanced yet.'])

    # Files

    def save(self, path):
        """Write the builder file."""
        body = {'part_power': self.part_power, 'replicas': self.replicas, 'min_part_hours': self.min_part_hours,
                'devices': self.devices, 'version': self.version, 'salt': base64.b64encode(self.salt).decode(),
                'table': self.table, 'moved': self.moved, 'overload': self.overload}
        part = f'{path}.{os.getpid()}'
        with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o640), 'w') as out:
            json.dump(body, out)
        os.rename(part, path)

    @classmethod
    def load(cls, path):
        """Read a builder file."""
        with open(path) as source:
            body = json.load(source)
        made = cls(body['part_power'], body['replicas'], body['min_part_hours'], base64.b64decode(body['salt']),
                   body.get('overload', 0.0))
        made.devices, made.version, made.table, made.moved = body['devices'], body['version'], body['table'], body['moved']
        return made

    def write_ring(self, path):
        """Write the ring file."""
        if self.validate():
            raise Refused(self.validate()[0])
        file.write(path, self.table, self.devices, self.part_power, self.salt, self.version)
