"""Locations that are not made by this service: URLs that users, or other services, say an image's data lies under.

Two ways lead here. JSON-patch (where ``[stores] show_locations`` lets users see and change locations) makes an image active
at once, and hashes nothing. The location API starts a saga that reads the data: with hashes to compare it with, the image
becomes active when they fit; without, it is active at once and gets its hashes later.
"""
import hashlib
import logging

import sqlalchemy as sa

from kodiak.common import db, errors, saga

from . import catalog, notices, tasks
from .drivers import base
from .models import images

LOG = logging.getLogger(__name__)
#: What hashes a location may be declared with, and the length of their text.
ALGORITHMS = {name: hashlib.new(name, usedforsecurity=False).digest_size * 2 for name in (
    'sha1', 'sha224', 'sha256', 'sha384', 'sha512', 'sha3_256', 'sha3_512', 'blake2b', 'blake2s')}
DEFAULT = 'sha512'
PIECE = 1 << 20


def check_validation(given):
    """``BadRequest`` for hashes that cannot be any."""
    if not given:
        return
    if not isinstance(given, dict) or not all(isinstance(value, str) for value in given.values()) or (
            set(given) - {'os_hash_algo', 'os_hash_value', 'checksum'}):
        raise errors.BadRequest('validation_data may hold os_hash_algo, os_hash_value and checksum, which are text.')
    algorithm, value = given.get('os_hash_algo'), given.get('os_hash_value')
    if not algorithm or not value:
        raise errors.BadRequest('validation_data needs os_hash_algo and os_hash_value.')
    if algorithm not in ALGORITHMS:
        raise errors.BadRequest(f"validation_data: the hash algorithm '{algorithm[:40]}' is not known here.")
    for name, length in (('os_hash_value', ALGORITHMS[algorithm]), ('checksum', 32)):
        text = given.get(name)
        if text is not None and (len(text) != length or set(text.lower()) - set('0123456789abcdef')):
            raise errors.BadRequest(f'validation_data: {name} must have {length} hexadecimal digits.')


def _entry(app, given):
    store = app.extra['stores'].taking(given['url'])
    return {'url': given['url'], 'metadata': {**given['metadata'], 'store': store.id}, 'store': store.id, 'blob': None}


def _visible(app, image, verb, statuses):
    if not app.conf.stores.show_locations:
        raise errors.Forbidden(f"It's not allowed to {verb} locations if locations are invisible.")
    if image['status'] not in statuses:
        raise errors.Conflict(f"It's not allowed to {verb} locations if image status is {image['status']}.")


def measure(app, given):
    """``{url: size}`` of locations as a request gives them, for :func:`add`: found out before there is a transaction."""
    if not app.conf.stores.show_locations:
        return {}
    found = {}
    for one in given:
        _check(one)
        found[one['url']] = size_of(app, _entry(app, one))
    return found


def add(app, image, given, place, sizes):
    """The columns that change when a location is added at a place (a number as text, or ``-`` for the end).

    :param sizes: what :func:`measure` found.
    """
    _visible(app, image, 'add', ('queued', 'active'))
    _check(given)
    validation = given.get('validation_data')
    if image['status'] == 'queued':
        check_validation(validation)
    elif validation and any(image.get(name) != value for name, value in validation.items()):
        raise errors.Conflict('The validation data is not what the image has.')
    known = image['locations'] if image['status'] == 'active' else []
    entry = _entry(app, given)
    if any(location['url'] == entry['url'] for location in known):
        raise errors.BadRequest('The location is one of the image already.')
    catalog.Limits.of(app.conf).check('locations', len(known) + 1)
    index = len(known) if place == '-' else int(place)
    if index > len(known):
        raise errors.BadRequest('Invalid position for adding a location.')
    changes = {'locations': [*known[:index], entry, *known[index:]]}
    if image['status'] == 'queued':
        if not image['disk_format'] or not image['container_format']:
            raise errors.BadRequest('Properties disk_format, container_format must be set prior to saving data.')
        changes.update(status='active', size=sizes[entry['url']])
        if validation:
            changes.update(validation)
    return changes


def _check(given):
    if not isinstance(given, dict) or not isinstance(given.get('url'), str) or not isinstance(given.get('metadata'), dict):
        raise errors.BadRequest('Invalid location: it needs a url and metadata.')
    if not isinstance(given.get('validation_data', {}), dict):
        raise errors.BadRequest('Invalid location: validation_data must be an object.')
    if len(given['url']) > 2048:
        raise errors.BadRequest('Invalid location: its url is longer than 2048 characters.')


def replace(app, image, given):
    """The columns that change when the metadata of locations changes; their URLs must be those that are there."""
    _visible(app, image, 'replace', ('active',))
    if not isinstance(given, list):
        raise errors.BadRequest('Invalid locations: they must be a list.')
    if not given:
        raise errors.Forbidden('Cannot set locations to empty list.')
    for one in given:
        _check(one)
    if [one['url'] for one in given] != [location['url'] for location in image['locations']]:
        raise errors.BadRequest('Locations can be replaced by themselves only, with other metadata.')
    return {'locations': [{**location, 'metadata': {**one['metadata'], 'store': location['store']}}
                          for one, location in zip(given, image['locations'], strict=True)]}


def remove(app, image, place):
    """The columns that change when a location is removed. What this service keeps there is the caller's to doom."""
    _visible(app, image, 'remove', ('active',))
    if len(image['locations']) == 1:
        raise errors.Forbidden('Cannot remove last location in the image.')
    if not place.isdigit() or int(place) >= len(image['locations']):
        raise errors.BadRequest('Invalid position for removing a location.')
    index = int(place)
    return {'locations': image['locations'][:index] + image['locations'][index + 1:]}


def size_of(app, location):
    """Bytes of the data of a location, or None where its server doesn't say; ``BadRequest`` where there is none."""
    try:
        source = app.extra['stores'][location['store']].open(location['blob'] or location['url'])
    except (base.NoSuchData, base.StoreUnavailable) as error:
        raise errors.BadRequest(f'Invalid location: {error}') from None
    source.close()
    if source.size is not None and source.size > app.conf.limits.image_size:
        raise errors.RequestTooLarge(f'The data has {source.size} bytes; {app.conf.limits.image_size} are allowed.')
    return source.size


def start(connection, context, image, entry, size, validation):
    """Claim a queued image for a location and start reading its data; returns the task's row."""
    now = catalog.locked(connection, image['id'])
    if now['status'] != 'queued':
        raise errors.Conflict(f"It's not allowed to add locations if image status is {now['status']}.")
    task = tasks.add(connection, context, 'location_import', image['id'], {
        'image_id': image['id'], 'loc_url': entry['url'], 'validation_data': validation})
    columns = {'status': 'importing', 'locations': [entry]} if validation else {
        'status': 'active', 'locations': [entry], 'size': size, 'os_hash_algo': DEFAULT}
    catalog.update(connection, image['id'], columns)
    notices.image(connection, image['id'], 'update', *(['activate'] if columns['status'] == 'active' else []))
    saga.start(connection, LOCATION, image['id'], {'task': task['id'], 'entry': entry, 'validation': validation}, context)
    return task


def _read(work):
    """Hash the data of the location."""
    work.db.transact(tasks.begin, work.data['task'])
    entry, validation = work.data['entry'], work.data['validation']
    algorithm = validation.get('os_hash_algo', DEFAULT)
    md5, other, size = hashlib.md5(usedforsecurity=False), hashlib.new(algorithm, usedforsecurity=False), 0
    try:
        source = work.app.extra['stores'][entry['store']].open(entry['url'])
    except base.NoSuchData as error:
        raise errors.BadRequest(f'Invalid location: {error}') from None
    except base.StoreUnavailable as error:
        raise errors.Unavailable(str(error)) from None
    try:
        while data := source.read(PIECE):
            size += len(data)
            md5.update(data)
            other.update(data)
            if size > work.app.conf.limits.image_size:
                raise errors.RequestTooLarge(f'More than {work.app.conf.limits.image_size} bytes are not allowed.')
            if size % (64 * PIECE) < PIECE:
                _still_there(work, size)
        if source.size not in (None, size):
            raise errors.Unavailable(f'Only {size} of {source.size} bytes could be read.')
    finally:
        source.close()
    found = {'size': size, 'checksum': md5.hexdigest(), 'os_hash_algo': algorithm, 'os_hash_value': other.hexdigest()}
    for name in ('os_hash_value', 'checksum'):
        if validation.get(name) and validation[name].lower() != found[name]:
            raise errors.BadRequest(f'The data of the location has another {name} than the one that was given.')
    return {'found': found}


def _still_there(work, size):
    with work.db.read() as connection:
        if connection.execute(sa.select(images.c.id).where(images.c.id == work.resource_id)).first() is None:
            raise errors.Gone(f'Image {work.resource_id} was deleted.')
    work.db.transact(tasks.update, work.data['task'], message=f'Read {size >> 20} MiB')


def _finish(work):
    def write(connection):
        if catalog.update(connection, work.resource_id, {**work.data['found'], 'status': 'active'},
                          images.c.status.in_(('importing', 'active'))):
            notices.image(connection, work.resource_id, 'update', *(['activate'] if work.data['validation'] else []))
        tasks.end(connection, work.data['task'], 'success', result={'image_id': work.resource_id})
    work.in_commit(write)


def _failed(work, error):
    def write(connection):
        image = db.one(connection, sa.select(images).where(images.c.id == work.resource_id).with_for_update())
        if image is not None and image['status'] == 'importing':
            # The location stays to be seen, and is replaced by the next one; a queued image gives no data away.
            catalog.update(connection, image['id'], {'status': 'queued'})
            notices.image(connection, image['id'], 'update')
        elif image is not None and not work.data['validation'] and image['os_hash_value'] is None:
            catalog.update(connection, image['id'], {'os_hash_algo': None})
        tasks.end(connection, work.data['task'], 'failure', getattr(error, 'message', str(error)))
    work.db.transact(write)


LOCATION = saga.Saga('location', [saga.Step('read', _read, retries=3), saga.Step('finish', _finish)], on_failure=_failed,
                     deadline=12 * 3600)
