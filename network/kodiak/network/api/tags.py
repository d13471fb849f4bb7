"""Tags of resources."""
import re

from kodiak.common import api, errors
from kodiak.common.api import schema
from kodiak.network import unit

from . import fields

TAG = re.compile(r'^[^,/]{1,255}$')
TAGS = schema.obj({'tags': schema.array({'type': 'string', 'minLength': 1, 'maxLength': 255})}, ['tags'])
MOST = 50


def _check(tags):
    for tag in tags:
        if not TAG.match(tag):
            raise fields.bad('tags', tag, 'is not a tag: 1 to 255 characters without a comma or a slash')
    if len(tags) > MOST:
        raise errors.BadRequest(f'A resource can have {MOST} tags at most.', kind='HTTPBadRequest')
    return tags


def routes(resources):
    """The endpoints of the tags of some resources."""
    made = api.Routes('tags')
    for resource in resources:
        if resource.taggable:
            _declare(made, resource)
    return made


def _write(req, resource, change):
    def write(one):
        row = one.one(fields.sa.select(resource.table).where(resource.table.c.id == req.target['id']).with_for_update())
        if row is None:
            raise resource.not_found(req.target['id'])
        tags = _check(change(list(row['tags'] or ())))
        if tags != row['tags']:
            one.update(resource.table, row['id'], {'tags': tags})
        return tags
    return unit.run(req.app, req.ctx, write)


def _missing(tag):
    return errors.NotFound(f'Tag {tag} could not be found.', kind='TagNotFound')


def _declare(made, resource):
    path, what = f'{resource.path}/{{id}}/tags', resource.plural.replace('_', ' ')
    see = {'rule': f'get_{resource.plural}_tags', 'default': resource.policies['get'], 'load': resource.load}
    change = {'rule': f'update_{resource.plural}_tags', 'default': resource.policies['update'], 'load': resource.load}

    @made.get(path, summary=f'List the tags of one of {what}', response=TAGS, **see)
    def show(req, id):
        return {'tags': req.target['tags'] or []}

    @made.get(path + '/{tag}', status=204, summary=f'Ask whether one of {what} has a tag', **see)
    def has(req, id, tag):
        if tag not in (req.target['tags'] or ()):
            raise _missing(tag)

    @made.put(path, body=TAGS, response=TAGS, summary=f'Replace the tags of one of {what}', **change)
    def replace(req, id):
        return {'tags': _write(req, resource, lambda tags: list(dict.fromkeys(req.body['tags'])))}

    @made.post(path, body=TAGS, response=TAGS, status=200, summary=f'Add tags to one of {what}', **change)
    def extend(req, id):
        return {'tags': _write(req, resource, lambda tags: list(dict.fromkeys([*tags, *req.body['tags']])))}

    @made.put(path + '/{tag}', status=201, summary=f'Give one of {what} a tag', **change)
    def add(req, id, tag):
        _write(req, resource, lambda tags: list(dict.fromkeys([*tags, tag])))

    @made.delete(path + '/{tag}', summary=f'Take a tag from one of {what}', **change)
    def remove(req, id, tag):
        def without(tags):
            if tag not in tags:
                raise _missing(tag)
            return [one for one in tags if one != tag]
        _write(req, resource, without)

    @made.delete(path, summary=f'Take all tags from one of {what}', **change)
    def clear(req, id):
        _write(req, resource, lambda tags: [])
