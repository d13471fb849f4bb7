"""nftables tables as data: what a table should be, what it is, and the one transaction between them.

A script is applied by ``nft -f``, which either does all of it at once or nothing. Rules are never read back: the
last rule of each chain carries a hash of the chain's rules and their number as its comment, and two chains are the
same if those are. Sets and maps are compared element by element, so that one new address costs one element.
"""
import hashlib
import json
from dataclasses import dataclass, field


@dataclass(slots=True)
class Chain:
    """A chain: ``hook`` is empty or the whole ``type ... hook ...; policy ...;`` declaration."""

    rules: tuple[str, ...] = ()
    hook: str = ''
    seen: str | None = None             # the hash that was read from the kernel; None: it follows from the rules

    @property
    def hash(self):
        if self.seen is not None:
            return self.seen
        return f'{hashlib.sha256(chr(10).join(self.rules).encode()).hexdigest()[:16]}/{len(self.rules)}'


@dataclass(slots=True)
class Set:
    """A set, or a map if ``maps`` is given: elements are ``{key: value}`` as text, with '' as value in a set.

    ``type`` and ``maps`` are the types as they are read back; ``typeof`` declares those that have no name.
    """

    type: str
    maps: str = ''
    interval: bool = False
    elements: dict = field(default_factory=dict)
    typeof: str = ''

    @property
    def noun(self):
        return 'map' if self.maps else 'set'

    @property
    def declaration(self):
        named = f'type {self.type}' + (f' : {self.maps}' if self.maps else '')
        return (f'typeof {self.typeof}' if self.typeof else named) + ';' + (' flags interval;' if self.interval else '')

    @property
    def shape(self):
        """What can't be changed without making the table anew."""
        return self.type, self.maps, self.interval


@dataclass(slots=True)
class Table:
    family: str
    name: str
    sets: dict = field(default_factory=dict)
    chains: dict = field(default_factory=dict)

    @property
    def title(self):
        return f'{self.family} {self.name}'


def _element(key, value):
    return f'{key} : {value}' if value else key


def _elements(verb, title, name, elements, size=500):
    """``add element`` or ``delete element`` commands, some hundred elements each."""
    texts = [_element(key, value) if verb == 'add' else key for key, value in elements]
    for start in range(0, len(texts), size):
        yield f'{verb} element {title} {name} {{ {", ".join(texts[start:start + size])} }}'


def _rules(title, name, chain):
    last = len(chain.rules) - 1
    for index, rule in enumerate(chain.rules):
        yield f'add rule {title} {name} {rule}' + (f' comment "h:{chain.hash}"' if index == last else '')


def _incompatible(wanted, observed):
    """True if the observed table has to be replaced as a whole: made by another version, or changed by others."""
    for name, one in observed.sets.items():
        if name in wanted.sets and wanted.sets[name].shape != one.shape:
            return True
    return any(name in wanted.chains and bool(wanted.chains[name].hook) != bool(chain.hook)
               for name, chain in observed.chains.items())


def diff(wanted, observed):
    """The script that makes a table what it should be.

    :param wanted: a :class:`Table`.
    :param observed: a :class:`Table`, or None where there is none.
    :returns: text for ``nft -f``; empty when nothing is to be done.
    """
    title, lines = wanted.title, []
    if observed is not None and _incompatible(wanted, observed):
        lines.append(f'delete table {title}')
        observed = None
    if observed is None:
        lines.append(f'add table {title}')
        observed = Table(wanted.family, wanted.name)

    removals = []
    for name, one in wanted.sets.items():
        have = observed.sets.get(name)
        if have is None:
            lines.append(f'add {one.noun} {title} {name} {{ {one.declaration} }}')
    fresh = [name for name in wanted.chains if name not in observed.chains]
    for name in fresh:
        hook = wanted.chains[name].hook
        lines.append(f'add chain {title} {name}' + (f' {{ {hook} }}' if hook else ''))
    late = []
    for name, one in wanted.sets.items():
        have = observed.sets[name].elements if name in observed.sets else {}
        gone = [(key, value) for key, value in have.items() if one.elements.get(key) != value]
        new = [(key, value) for key, value in one.elements.items() if have.get(key) != value]
        removing = _elements('delete', title, name, gone)
        # An element of a verdict map may name a chain: it comes after its chain and goes before it.
        target = late if one.maps == 'verdict' else lines
        target.extend(removing)
        target.extend(_elements('add', title, name, new))
    for name, chain in wanted.chains.items():
        if name in fresh:
            lines.extend(_rules(title, name, chain))
        elif observed.chains[name].hash != chain.hash:
            lines.append(f'flush chain {title} {name}')
            lines.extend(_rules(title, name, chain))
    stale = [name for name in observed.chains if name not in wanted.chains]
    removals += [f'flush chain {title} {name}' for name in stale]
    removals += [f'delete chain {title} {name}' for name in stale]
    removals += [f'delete {one.noun} {title} {name}' for name, one in observed.sets.items() if name not in wanted.sets]
    return ''.join(line + '\n' for line in lines + late + removals)


def _text(value):
    """An element, or a part of one, as it is written in a script."""
    if isinstance(value, dict):
        if 'concat' in value:
            return ' . '.join(_text(part) for part in value['concat'])
        if 'prefix' in value:
            return f'{value["prefix"]["addr"]}/{value["prefix"]["len"]}'
        if 'range' in value:
            return '-'.join(_text(part) for part in value['range'])
        if 'jump' in value:
            return 'jump ' + value['jump']['target']
        if 'elem' in value:
            return _text(value['elem']['val'])
    return str(value)


def parse(text):
    """The tables in the output of ``nft -j list``.

    :returns: {'<family> <name>': Table}; its chains have hashes and no rules.
    """
    tables, counts = {}, {}
    for item in json.loads(text)['nftables']:
        (kind, body), = item.items()
        if kind == 'table':
            tables[f'{body["family"]} {body["name"]}'] = Table(body['family'], body['name'])
            continue
        table = tables.get(f'{body.get("family")} {body.get("table")}')
        if table is None:
            continue
        if kind in ('set', 'map'):
            shape = body['type']
            one = Set(shape if isinstance(shape, str) else ' . '.join(shape), maps=body.get('map', ''),
                      interval='interval' in body.get('flags', ()))
            for element in body.get('elem', ()):
                if kind == 'map':
                    one.elements[_text(element[0])] = _text(element[1])
                else:
                    one.elements[_text(element)] = ''
            table.sets[body['name']] = one
        elif kind == 'chain':
            table.chains[body['name']] = Chain(hook=body.get('hook', ''), seen='')
        elif kind == 'rule':
            chain = body['chain']
            counts[table.title, chain] = counts.get((table.title, chain), 0) + 1
            comment = body.get('comment', '')
            table.chains[chain].seen = comment[2:] if comment.startswith('h:') else ''
    for (title, name), count in counts.items():
        chain = tables[title].chains[name]
        if not chain.seen.endswith(f'/{count}'):
            chain.seen = ''
    return tables
