"""The errors of network, under the names that clients of Neutron know them by."""
from kodiak.common import errors


def not_found(what, id, kind=None):
    """404 of a resource: ``not_found('Network', id)`` is a NetworkNotFound."""
    return errors.NotFound(f'{what} {id} could not be found.', kind=kind or what.replace(' ', '') + 'NotFound')


def missing(kind, message):
    """404 with a sentence of its own."""
    return errors.NotFound(message, kind=kind)


def invalid(message):
    """400 of input that is well-formed and makes no sense."""
    return errors.BadRequest(f'Invalid input for operation: {message}', kind='InvalidInput')


def bad(message, kind='BadRequest'):
    """400 with a name of its own."""
    return errors.BadRequest(message, kind=kind)


def conflict(kind, message):
    """409 with its name."""
    return errors.Conflict(message, kind=kind)


def forbidden(kind, message):
    """403 with its name."""
    return errors.Forbidden(message, kind=kind)


def over_quota(over):
    """409: a quota is used up. :param over: ``{resource: {'limit', 'used', 'requested'}}``."""
    said = '; '.join(f'{name}: {one["requested"]} requested, {one["used"]} of {one["limit"]} used'
                     for name, one in sorted(over.items()))
    return errors.Conflict(f'Quota exceeded for resources: {sorted(over)}. {said}.', kind='OverQuota')


def named(ports, most=3):
    """Ports as text, for whoever has to do something about them: ``port <id> (<owner> of <device>), ...``."""
    said = [f'port {port["id"]} ({port["device_owner"] or "no owner"}' + (f' of {port["device_id"]})' if port['device_id'] else ')')
            for port in ports[:most]]
    return ', '.join(said) + (f' and {len(ports) - most} more' if len(ports) > most else '')


def address_in_use(address, network_id):
    """409: somebody has that address."""
    return conflict('IpAddressAlreadyAllocated' if network_id is None else 'IpAddressInUse',
                    f'Unable to complete operation for network {network_id}. The IP address {address} is in use.')


def no_addresses(network_id):
    """409: the pools are used up."""
    return conflict('IpAddressGenerationFailure', f'No more IP addresses available on network {network_id}.')
