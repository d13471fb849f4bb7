"""What the documentation names is there: options, programs, files."""
import pathlib
import re
import tomllib

import pytest

TOP = pathlib.Path(__file__).parents[2]
DOCUMENTS = [path for folder in ('.', 'doc', '*', '*/kodiak/**') for path in TOP.glob(f'{folder}/*.rst')
             if 'reference' not in path.parts and not path.parts[len(TOP.parts)].startswith('.')]


def options():
    """``{group: names}`` of all services."""
    found = {}
    for path in TOP.glob('*/etc/*.conf.sample'):
        for line in path.read_text().splitlines():
            if group := re.fullmatch(r'\[(\w+)\]', line):
                names = found.setdefault(group[1], set())
            elif option := re.match(r'#(\w+) = ', line):
                names.add(option[1])
    return found


@pytest.mark.parametrize('path', sorted(set(DOCUMENTS)), ids=lambda path: str(path.relative_to(TOP)))
def test_options_and_programs(path):
    known, text = options(), path.read_text()
    scripts = {name for project in TOP.glob('*/pyproject.toml')
               for name in tomllib.loads(project.read_text())['project'].get('scripts', {})}
    # (conformance.rst speaks of the options of other people's programs)
    missing = [f'[{group}] {name}' for group, name in re.findall(r'``\[(\w+)\] (\w+)', text)
               if group in known and name not in known[group] and path.name != 'conformance.rst']
    missing += [name for name in re.findall(r'^ +(?:\w+=\S+ )*(kodiak(?:-[a-z]+)*) ', text, re.M) if name not in scripts]
    assert missing == []
