"""Instances to test with."""
import dataclasses

from kodiak.compute.agent import state

UUID = '11111111-2222-3333-4444-555555555555'


def image(**more):
    return state.Image(**{'id': 'image-1', 'name': 'guest', 'hash': None, **more})


def port(number=1, **more):
    return state.Port(**{
        'id': f'{number:08d}-0000-0000-0000-000000000000', 'mac': f'fa:16:3e:00:00:{number:02x}', 'tap': f'tap{number:08d}-00',
        'mtu': 1450, 'network_id': 'net-1', 'fixed_ips': [
            state.FixedIP('10.0.0.5', '10.0.0.0/24', gateway='10.0.0.1', dns=['9.9.9.9'],
                          routes=[{'destination': '10.9.0.0/16', 'nexthop': '10.0.0.254'}])], **more})


def volume(number=1, **more):
    return state.Volume(**{
        'id': f'{number:08d}-1111-0000-0000-000000000000', 'device': '/dev/vdb', 'size': 1,
        'connection': {'driver_volume_type': 'nbd', 'data': {'host': '127.0.0.1', 'port': 10809, 'export': 'v'}}, **more})


def spec(**more):
    return state.Spec(**{
        'uuid': UUID, 'name': 'web', 'domain_name': 'instance-00000001', 'hostname': 'web', 'project_id': 'project-1',
        'user_id': 'user-1', 'flavor': state.Flavor('small', 1, 128, 1), 'image': image(), 'ports': [port()], **more})


def instance(desired='running', generation=1, operations=(), **more):
    extra = {name: more.pop(name) for name in ('built', 'source', 'desired_generation', 'stop_timeout') if name in more}
    return state.Instance(UUID, generation, desired, spec(**more), operations=list(operations),
                          **{'desired_generation': generation, **extra})


def operation(number, kind, **args):
    return state.Operation(number, kind, args)


def changed(instance, **more):
    """A copy with another generation; names of the spec's fields go into the spec."""
    fields = {field.name for field in dataclasses.fields(state.Spec)}
    inner = {name: more.pop(name) for name in list(more) if name in fields and name != 'uuid'}
    return dataclasses.replace(instance, generation=instance.generation + 1,
                               spec=dataclasses.replace(instance.spec, **inner), **more)
