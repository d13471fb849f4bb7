"""Imports: sagas that bring data from where a user has it into the stores that the user names.

The data comes into the default store first, as a staged blob (staging by the client has put it there already), is judged
there, and is then promoted, or copied to the other stores. Blobs have ids that follow from the saga's number, so that a step
that is run again finds what it made the first time.
"""
import contextlib
import logging
import os
import uuid

import sqlalchemy as sa

from kodiak.common import db, errors, saga

from . import blobs, catalog, convert, formats, notices, quotas, remote, signatures, tasks, trash, unpack, uploads, web
from .drivers import base
from .models import blobs as table
from .models import images

LOG = logging.getLogger(__name__)
METHODS = ('glance-direct', 'web-download', 'copy-image', 'glance-download')
#: Status that an image must have, by method.
NEEDS = {'glance-direct': 'uploading', 'web-download': 'queued', 'glance-download': 'queued', 'copy-image': 'active'}
#: Properties that tell the client how far it is.
WAITING, FAILED = 'os_glance_importing_to_stores', 'os_glance_failed_import'
DEADLINE = 12 * 3600
NAMESPACE = uuid.UUID('a1c6f2de-5a0b-4b53-9c2f-0b1a0c7e4f10')


def delete(connection, image_id, delay):
    """Delete an image, stop what imports for it, and doom what stores hold of it, to be removed after ``delay`` seconds.

    Until then :func:`kodiak.image.trash.restore` brings it back.
    """
    if delay:
        trash.keep(connection, image_id, delay)
    notices.deleted(connection, image_id)
    catalog.delete(connection, image_id)
    saga.abort(connection, image_id, 'The image was deleted.')
    blobs.doom(connection, table.c.image_id == image_id, delay)


def start(connection, context, image, stores, request, inject, kind='api_image_import', certificate=None):
    """Claim an image and start its import; returns the task's row.

    :param stores: ids of the stores that are to have the data. :param request: the body of the import request.
    :param inject: properties that the image gets by being imported. :param certificate: of an image that is signed, in PEM.
    :raises Conflict: the image is in another state, or is being imported.
    """
    method = request['method']['name']
    needs = NEEDS[method]
    now = catalog.locked(connection, image['id'])
    if now['status'] != needs or saga.active(connection, image['id']):
        raise errors.Conflict(f"The import method {method} needs an image in the status {needs} that is not being imported; "
                              f"this one is {now['status']}.")
    task = tasks.add(connection, context, kind, image['id'], {
        'image_id': image['id'], 'import_req': request, 'backend': stores})
    properties = {**now['properties'], WAITING: ','.join(stores), FAILED: ''}
    catalog.update(connection, image['id'], {
        'properties': properties, 'status': now['status'] if method == 'copy-image' else 'importing'})
    notices.image(connection, image['id'], 'update')
    saga.start(connection, IMPORT, image['id'], {
        'task': task['id'], 'method': method, 'uri': request['method'].get('uri'), 'request': request['method'],
        'stores': stores, 'all': request.get('all_stores_must_succeed', True), 'owner': image['owner'], 'kind': kind,
        'disk_format': now['disk_format'], 'container_format': now['container_format'], 'inject': inject,
        'certificate': certificate, 'signed': now['properties'] if certificate else None}, context, DEADLINE)
    return task


def blob_of(work, step, store_id):
    """The id of the blob that a step of a saga makes in a store."""
    return str(uuid.uuid5(NAMESPACE, f'{work.saga_id}/{work.resource_id}/{step}/{store_id}'))


def _image(work):
    return {'id': work.resource_id, 'owner': work.data['owner']}


def progress(work, verb='Copied'):
    """``watch(size)`` that writes how far it is into the task."""
    def watch(size):
        work.db.transact(tasks.update, work.data['task'], message=f'{verb} {size >> 20} MiB')
    return watch


def take(work, step, store, read, expected=None, inspector=None, verb='Copied', limit=None):
    """Fill the blob of a step, or find it filled; returns its id and the facts of its data.

    :param limit: most bytes, where that is less than what the project may have.
    """
    blob = blob_of(work, step, store.id)
    with work.db.read() as connection:
        row = blobs.find(connection, blob)
    if row is not None and row['state'] == 'staged':
        return blob, row['facts']
    filling = blobs.Filling(work.app, work.resource_id, store, blob)
    work.db.transact(filling.begin)
    try:
        allowed = uploads.allowance(work.app, _image(work), expected)
        limit = allowed if limit is None else min(limit, allowed)
        outcome = filling.fill(read, inspector, limit, expected, progress(work, verb))
        if not work.db.transact(blobs.settle, blob, 'staged', facts=outcome.facts()):
            raise blobs.gone(work.resource_id)
    except BaseException:
        filling.discard()
        raise
    return blob, outcome.facts()


def drop(work, step, store_ids):
    """Have the blobs of a step removed."""
    ids = [blob_of(work, step, store_id) for store_id in store_ids]

    def forget(connection):
        blobs.doom(connection, table.c.id.in_(ids))
    work.db.transact(forget)


def _begin(work):
    work.db.transact(tasks.begin, work.data['task'])


def _fetch(work):
    """Bring the data into the default store, or find where it is."""
    method, stores = work.data['method'], work.app.extra['stores']
    if method == 'copy-image':
        return _present(work)
    if method == 'glance-direct':
        with work.db.read() as connection:
            row = blobs.staged(connection, work.resource_id)
        if row is None:
            raise errors.Conflict('The staged data of this image is gone. Stage it again.')
        return {'blob': row['id'], 'source': row['store'], 'facts': row['facts'], 'drop': True}
    more = {}
    inspector = _inspect(work, work.data['disk_format'], work.data['container_format'])
    if method == 'web-download':
        source = web.Fetch(web.Guard(work.app.conf.imports), work.data['uri'])
    else:
        source = remote.Download(work)
        more = {'columns': source.columns, 'properties': source.properties,
                'disk_format': source.columns['disk_format'], 'container_format': source.columns['container_format']}
        inspector = _inspect(work, more['disk_format'], more['container_format'])
    try:
        blob, facts = take(work, 'fetch', stores.default, source.read, source.size, inspector, 'Downloaded')
    finally:
        source.close()
    if method == 'glance-download':
        source.verify(facts)
    return {'blob': blob, 'source': stores.default.id, 'facts': facts, 'drop': True, **more}


def _present(work):
    """Where a copy begins: the first location whose store this service has."""
    with work.db.read() as connection:
        image = db.one(connection, sa.select(images).where(images.c.id == work.resource_id))
    for location in image['locations'] if image else ():
        if location['store'] in work.app.extra['stores'].by_id:
            return {'blob': location['blob'] or location['url'], 'source': location['store'], 'drop': False, 'facts': {
                'size': image['size'], 'checksum': image['checksum'], 'os_hash_algo': image['os_hash_algo'],
                'os_hash_value': image['os_hash_value'], 'virtual_size': image['virtual_size'], 'refused': None}}
    raise errors.Conflict('There is no data to copy.')


def _unfetch(work):
    if work.data['method'] not in ('glance-direct', 'copy-image'):
        drop(work, 'fetch', [work.app.extra['stores'].default.id])


def _inspect(work, disk_format, container_format='bare'):
    return formats.Inspector(disk_format, container_format, work.app.conf.formats.enforce, strict=False)


def _target(work):
    """The disk format that the image is to have in the end; None: the one that it has."""
    if work.data['method'] == 'copy-image' or work.data['certificate']:
        return None
    asked = work.data['request'].get('convert_to')
    wanted = asked or work.app.conf.imports.convert_to
    if not wanted or wanted == work.data['disk_format']:
        return None
    # A CD image is a CD image, and kernels are no disks; who asks for a conversion is told so.
    if work.data['disk_format'] not in convert.QEMU or work.data['container_format'] not in ('bare', 'ova'):
        if asked:
            raise errors.BadRequest(f"An image of the formats {work.data['disk_format']} and {work.data['container_format']} "
                                    'cannot be converted.')
        return None
    return wanted


def _unpack(work):
    """Take the disk out of an archive."""
    data = work.data
    container, facts = data['container_format'], data['facts']
    if data['method'] == 'copy-image' or data['certificate']:
        return None
    if container == 'ova' and data['disk_format'] in ('vmdk', 'ova') and _target(work):
        kind = 'ova'
    else:
        kind = unpack.kind(bytes.fromhex(facts['begins'])) if container == 'bare' and work.app.conf.imports.unpack else None
    if kind is None:
        return None
    store = work.app.extra['stores'].default
    limit = unpack.bound(facts['size'], uploads.allowance(work.app, _image(work)))
    with contextlib.closing(work.app.extra['stores'][data['source']].open(data['blob'])) as source, \
            contextlib.closing(unpack.READERS[kind](source.read)) as reader:
        blob, new = take(work, 'unpack', store, reader.read, None, _inspect(work, data['disk_format']), 'Unpacked', limit)
    return {'blob': blob, 'source': store.id, 'facts': new, 'container_format': 'bare',
            'columns': {**data.get('columns', {}), 'container_format': 'bare'}}


def _ununpack(work):
    drop(work, 'unpack', [work.app.extra['stores'].default.id])


def _judge(work):
    """Refuse what an image cannot hold."""
    data = work.data
    if data['facts'].get('refused'):
        raise errors.BadRequest(data['facts']['refused'])
    if data['certificate']:
        checker = signatures.Verifier(data['signed'], data['certificate'])
        source = work.app.extra['stores'][data['source']].open(data['blob'])
        try:
            while piece := source.read(1 << 20):
                checker.feed(piece)
        finally:
            source.close()
        checker.verify()


def _convert(work):
    """Bring the data into the disk format that the image is to have."""
    data, target = work.data, _target(work)
    if target is None:
        return None
    stores = work.app.extra['stores']
    blob = blob_of(work, 'convert', stores.default.id)
    with work.db.read() as connection:
        row = blobs.find(connection, blob)
    if row is not None and row['state'] == 'staged':
        facts = row['facts']
    else:
        limit = uploads.allowance(work.app, _image(work))
        with convert.Scratch(work.app.conf.state_path, blob) as folder:
            path = stores[data['source']].path_of(data['blob']) or _bring(work, folder)
            made = convert.convert(path, data['disk_format'], target, folder, limit,
                                   lambda text: work.db.transact(tasks.update, data['task'], message=text))
            with open(made, 'rb', buffering=0) as file:
                blob, facts = take(work, 'convert', stores.default, file.read, os.path.getsize(made), _inspect(work, target))
    if facts['refused']:
        raise errors.BadRequest(facts['refused'])
    return {'blob': blob, 'source': stores.default.id, 'facts': facts, 'disk_format': target,
            'columns': {**data.get('columns', {}), 'disk_format': target}}


def _bring(work, folder):
    """A copy of the data in a folder of this host."""
    path = os.path.join(folder, 'source')
    source = work.app.extra['stores'][work.data['source']].open(work.data['blob'])
    try:
        with open(path, 'wb') as file:
            while data := source.read(1 << 20):
                file.write(data)
    finally:
        source.close()
    return path


def _unconvert(work):
    drop(work, 'convert', [work.app.extra['stores'].default.id])


def _claim(work):
    """Count the data against the project's quota, before it is anybody's."""
    if work.data['method'] == 'copy-image':
        return
    owner, size = work.data['owner'], work.data['facts']['size']
    limits = work.app.extra['limits'].of(owner)

    def claim(connection):
        quotas.claim(connection, limits, owner, {quotas.SIZE: size}, work.resource_id)
        if catalog.update(connection, work.resource_id, {'size': size}, images.c.status == 'importing'):
            notices.image(connection, work.resource_id, 'prepare')
    work.db.transact(claim)


def _unclaim(work):
    work.db.transact(catalog.update, work.resource_id, {'size': None}, images.c.status == 'importing')


def _place(work):
    """See that every store has the data; ``made`` is ``{store id: blob}``."""
    stores, data = work.app.extra['stores'], work.data
    made, failed, last = {}, [], None
    for store_id in data['stores']:
        if store_id == data['source'] and data['drop']:
            made[store_id] = data['blob']
        else:
            try:
                made[store_id] = _copy(work, store_id)
            except (errors.Error, base.NoSuchData, base.StoreUnavailable, OSError) as error:
                if data['all'] or isinstance(error, errors.Gone):
                    raise
                LOG.warning('Image %s could not be imported into the store %s: %s', work.resource_id, store_id, error)
                failed.append(store_id)
                last = error
        left = [other for other in data['stores'] if other not in made and other not in failed]
        work.db.transact(_tell, work.resource_id, left, failed)
    if not made:
        raise last
    return {'made': made, 'failed': failed, 'location': {store_id: stores[store_id].url(blob) for store_id, blob in made.items()}}


def _copy(work, store_id):
    stores, data = work.app.extra['stores'], work.data
    source = stores[data['source']].open(data['blob'])
    try:
        blob, facts = take(work, 'place', stores[store_id], source.read, data['facts']['size'])
    finally:
        source.close()
    for name in ('checksum', 'os_hash_value'):
        if data['facts'].get(name) not in (None, facts[name]):
            raise errors.Conflict(f"The data in the store {data['source']} is not what it was when it was stored.")
    return blob


def _tell(connection, image_id, left, failed):
    row = db.one(connection, sa.select(images).where(images.c.id == image_id).with_for_update())
    if row is not None:
        catalog.update(connection, image_id, {
            'properties': {**row['properties'], WAITING: ','.join(left), FAILED: ','.join(failed)}})


def _unplace(work):
    drop(work, 'place', work.data['stores'])


def _finish(work):
    work.in_commit(lambda connection: _activate(connection, work))


def _activate(connection, work):
    """Make the image what was imported. Exactly once, with the step's record."""
    data = work.data
    image = db.one(connection, sa.select(images).where(images.c.id == work.resource_id).with_for_update())
    if image is None:
        return  # deleted: the saga was aborted, or will find nothing to do
    new = [{'url': data['location'][store_id], 'metadata': {'store': store_id}, 'store': store_id, 'blob': blob}
           for store_id, blob in data['made'].items()]
    for blob in data['made'].values():
        blobs.settle(connection, blob, 'live', ('staged',))
    changes = {'properties': {**image['properties'], **data.get('properties', {}), **data.get('inject', {}), WAITING: '',
                              FAILED: ','.join(data['failed'])}}
    if data['method'] == 'copy-image':
        changes['locations'] = image['locations'] + new
    else:
        facts = {name: data['facts'][name] for name in ('size', 'checksum', 'os_hash_algo', 'os_hash_value', 'virtual_size')}
        changes.update(facts, locations=new, status='active', **data.get('columns', {}))
        blobs.doom(connection, sa.and_(table.c.image_id == image['id'], table.c.state == 'staged'))
    catalog.update(connection, image['id'], changes)
    notices.image(connection, image['id'], *(['update'] if data['method'] == 'copy-image' else ['upload', 'activate']))
    tasks.end(connection, data['task'], 'success', result={'image_id': image['id']})


def _failed(work, error):
    """What its owner reads of an import that failed, and the image as it was before."""
    data = work.data

    def write(connection):
        image = db.one(connection, sa.select(images).where(images.c.id == work.resource_id).with_for_update())
        if data['method'] == 'glance-direct':
            blobs.doom(connection, sa.and_(table.c.image_id == work.resource_id, table.c.state == 'staged'))
        if image is not None and data['kind'] == 'import':
            delete(connection, image['id'], 0)
        elif image is not None:
            changes = {'properties': {**image['properties'], WAITING: '', FAILED: ','.join(data['stores'])}}
            if data['method'] != 'copy-image' and image['status'] == 'importing':
                changes['status'] = 'queued'
            catalog.update(connection, image['id'], changes)
        reason = getattr(error, 'message', str(error))
        if image is not None:
            notices.failed(connection, image['id'], reason)
        tasks.end(connection, data['task'], 'failure', reason)
    work.db.transact(write)


IMPORT = saga.Saga('import', [
    saga.Step('begin', _begin),
    saga.Step('fetch', _fetch, _unfetch, retries=3),
    saga.Step('unpack', _unpack, _ununpack, retries=3),
    saga.Step('judge', _judge),
    saga.Step('convert', _convert, _unconvert, retries=3),
    saga.Step('claim', _claim, _unclaim),
    saga.Step('place', _place, _unplace, retries=3),
    saga.Step('finish', _finish),
], on_failure=_failed, deadline=DEADLINE)
