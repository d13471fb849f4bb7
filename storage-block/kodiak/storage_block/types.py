"""Volume types: which ones somebody may use, and what follows from one for a volume."""
import sqlalchemy as sa

from kodiak.common import db, errors

from .models import default_types, encryptions, qos_specs, type_access, volume_types

DEFAULT = '__DEFAULT__'
PER_GB = '_per_gb'
CIPHER, KEY_SIZES = 'aes-xts-plain64', (256, 512)
#: Of an extra spec: the zones that volumes of a type may be in.
ZONES = 'RESKEY:availability_zones'


def visible(ctx, table=volume_types, access=type_access):
    """The SQL condition for the types that a caller may use, or None for all."""
    if ctx.is_admin:
        return None
    return sa.or_(table.c.is_public, table.c.id.in_(
        sa.select(access.c.volume_type_id).where(access.c.project_id == ctx.project_id)))


def find(connection, ctx, name):
    """The row of a type that the caller may use, by id or name; ``NotFound`` otherwise."""
    query = sa.select(volume_types).where(sa.or_(volume_types.c.id == name, volume_types.c.name == name))
    condition = visible(ctx)
    if condition is not None:
        query = query.where(condition)
    rows = db.all_dicts(connection, query)
    for row in sorted(rows, key=lambda row: row['id'] != name):
        return row
    raise errors.NotFound(f'Volume type {name} could not be found.', kind='VolumeTypeNotFound')


def get(connection, type_id):
    """The row of a type, or None."""
    return db.one(connection, sa.select(volume_types).where(volume_types.c.id == type_id)) if type_id else None


def default(connection, conf, project_id):
    """The type of volumes whose maker names none: the project's, else the cloud's."""
    row = db.one(connection, sa.select(volume_types).join(
        default_types, default_types.c.volume_type_id == volume_types.c.id).where(default_types.c.project_id == project_id))
    if row is None:
        row = db.one(connection, sa.select(volume_types).where(volume_types.c.name == conf.storage_block.default_volume_type))
    if row is None:
        raise errors.NotFound(f'The default volume type {conf.storage_block.default_volume_type} does not exist. Name a volume '
                              'type, or ask the operator to make it.', kind='VolumeTypeNotFoundByName')
    return row


def encryption_of(connection, type_id):
    """How volumes of a type are encrypted (without a key), or None.

    :raises BadRequest: it asks for what is not offered.
    """
    row = db.one(connection, sa.select(encryptions).where(encryptions.c.volume_type_id == type_id)) if type_id else None
    if row is None:
        return None
    found = {'provider': row['provider'], 'cipher': row['cipher'] or CIPHER, 'key_size': row['key_size'] or max(KEY_SIZES)}
    if 'luks' not in row['provider'].lower() or found['cipher'] != CIPHER or found['key_size'] not in KEY_SIZES:
        raise errors.BadRequest(f"Invalid volume type: Its encryption asks for {row['provider']} with {found['cipher']} and a key "
                                f"of {found['key_size']} bits; offered is luks with {CIPHER} and "
                                f"{' or '.join(map(str, KEY_SIZES))} bits. Choose another type.", kind='InvalidVolumeType')
    return found


def zones_of(extra_specs):
    """The availability zones that volumes of a type may be in; empty for all."""
    return [zone.strip() for zone in extra_specs.get(ZONES, '').split(',') if zone.strip()]


def qos_of(connection, volume_type, size=None):
    """What the hypervisor is to hold a volume of a type to, or None.

    :param size: GiB of the volume: limits for each GiB (``..._per_gb``, at least ``..._per_gb_min``) become those of the whole.
    """
    if volume_type is None or volume_type['qos_specs_id'] is None:
        return None
    row = db.one(connection, sa.select(qos_specs).where(qos_specs.c.id == volume_type['qos_specs_id']))
    if row is None or row['consumer'] not in ('front-end', 'both'):
        return None
    specs = dict(row['specs'])
    for name in [name for name in specs if name.endswith(PER_GB)] if size else ():
        each, least = specs.pop(name), specs.pop(name + '_min', '0')
        if each.isdigit() and least.isdigit():
            specs[name.removesuffix(PER_GB)] = str(max(int(each) * size, int(least)))
    return specs


def multiattach(volume_type):
    """True if volumes of a type may be attached to several servers."""
    return (volume_type or {}).get('extra_specs', {}).get('multiattach', '').lower() == '<is> true'
