"""What is told on the message bus."""
import sqlalchemy as sa

from kodiak.common import db, outbox


def told(service):
    with service.db.read() as connection:
        rows = db.all_dicts(connection, sa.select(outbox.rows).order_by(outbox.rows.c.id))
    return [(row['event_type'], row['payload']) for row in rows]


def test_changes_are_told_where_that_is_asked_for(service, member, make, net):
    make(member, 'network')
    assert told(service) == []
    outbox.announce(service.db)
    network, subnet = net(member)
    member.put('/networks/' + network['id'], {'network': {'name': 'x'}}).expect(200)
    router = make(member, 'router')
    member.put(f"/routers/{router['id']}/add_router_interface", {'subnet_id': subnet['id']}).expect(200)
    member.put(f"/routers/{router['id']}/remove_router_interface", {'subnet_id': subnet['id']}).expect(200)
    member.delete('/routers/' + router['id']).expect(204)
    found = told(service)
    assert [name for name, _ in found] == ['network.create.end', 'subnet.create.end', 'network.update.end', 'router.create.end',
                                           'router.interface.create', 'router.interface.delete', 'router.delete.end']
    assert found[0][1]['network']['id'] == network['id'] and found[2][1]['network']['name'] == 'x'
    assert found[4][1]['router_interface']['subnet_id'] == subnet['id'] and found[6][1] == {'router_id': router['id']}
    member.post('/networks', {'network': {'name': 7}}).expect(400)
    assert len(told(service)) == len(found)
