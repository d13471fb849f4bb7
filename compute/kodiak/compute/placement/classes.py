"""Resource classes and traits: the standard ones of the field, and the operators' own (``CUSTOM_...``)."""
import functools
import re

import os_resource_classes
import os_traits
import sqlalchemy as sa

from kodiak.common import db, errors

from ..models import placement as models

CUSTOM = re.compile(r'^CUSTOM_[A-Z0-9_]+$')
STANDARD_CLASSES = tuple(os_resource_classes.STANDARDS)


@functools.cache
def standard_traits():
    """Every standard trait, as a frozenset."""
    return frozenset(os_traits.get_traits())


def class_exists(connection, name):
    """True if the resource class is standard or has been made."""
    return name in STANDARD_CLASSES or connection.execute(
        sa.select(models.resource_classes.c.name).where(models.resource_classes.c.name == name)).first() is not None


def require_classes(connection, names):
    """``BadRequest`` that lists those of ``names`` that are no resource class."""
    missing = sorted(name for name in set(names) if not class_exists(connection, name))
    if missing:
        raise errors.BadRequest(f'No such resource class {", ".join(missing)}.')


def all_classes(connection):
    """Names of every resource class, the standard ones first."""
    own = connection.execute(sa.select(models.resource_classes.c.name).order_by(models.resource_classes.c.name)).scalars()
    return [*STANDARD_CLASSES, *own]


def create_class(connection, name):
    """Make a custom resource class; True if it is new."""
    if class_exists(connection, name):
        return False
    connection.execute(models.resource_classes.insert().values(name=name, updated_at=db.utcnow()))
    return True


def delete_class(connection, name):
    """Delete a custom resource class that no inventory has."""
    if name in STANDARD_CLASSES:
        raise errors.BadRequest(f'Cannot delete standard resource class {name}.')
    if not class_exists(connection, name):
        raise errors.NotFound(f'No such resource class {name}.')
    used = sa.select(models.inventories.c.resource_class).where(models.inventories.c.resource_class == name).limit(1)
    if connection.execute(used).first():
        raise errors.Conflict(f'Error in delete resource class: Class {name} is in use in inventory.')
    connection.execute(models.resource_classes.delete().where(models.resource_classes.c.name == name))


def trait_exists(connection, name):
    """True if the trait is standard or has been made."""
    return name in standard_traits() or connection.execute(
        sa.select(models.traits.c.name).where(models.traits.c.name == name)).first() is not None


def unknown_traits(connection, names):
    """Those of ``names`` that are no trait, sorted."""
    own = set(names) - standard_traits()
    if not own:
        return []
    known = set(connection.execute(sa.select(models.traits.c.name).where(models.traits.c.name.in_(own))).scalars())
    return sorted(own - known)


def all_traits(connection):
    """Names of every trait, sorted."""
    return sorted(standard_traits().union(connection.execute(sa.select(models.traits.c.name)).scalars()))


def create_trait(connection, name):
    """Make a custom trait; True if it is new."""
    if trait_exists(connection, name):
        return False
    connection.execute(models.traits.insert().values(name=name, updated_at=db.utcnow()))
    return True


def delete_trait(connection, name):
    """Delete a custom trait that no provider has."""
    if name in standard_traits():
        raise errors.BadRequest(f'Cannot delete standard trait {name}.')
    if not trait_exists(connection, name):
        raise errors.NotFound(f'No such trait {name}.')
    if connection.execute(sa.select(models.provider_traits.c.trait).where(models.provider_traits.c.trait == name).limit(1)).first():
        raise errors.Conflict(f'The trait {name} is in use by a resource provider.')
    connection.execute(models.traits.delete().where(models.traits.c.name == name))
