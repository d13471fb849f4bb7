"""The catalog, as tokens show it."""
import orjson
import sqlalchemy as sa

from .models import endpoint_groups, endpoints, project_endpoint_groups, project_endpoints, service_providers, services


def build(connection):
    """The catalog of enabled services and endpoints in the form of the token API, URLs with their placeholders."""
    rows = connection.execute(
        sa.select(services.c.id.label('service_id'), services.c.type, services.c.name, endpoints.c.id, endpoints.c.interface,
                  endpoints.c.region_id, endpoints.c.url)
        .outerjoin_from(services, endpoints, sa.and_(endpoints.c.service_id == services.c.id, endpoints.c.enabled.is_(True)))
        .where(services.c.enabled.is_(True)).order_by(services.c.type, services.c.id, endpoints.c.region_id, endpoints.c.id)).all()
    found = {}
    for row in rows:
        service = found.setdefault(row.service_id, {'id': row.service_id, 'type': row.type, 'name': row.name or '',
                                                    'endpoints': []})
        if row.id:
            service['endpoints'].append({'id': row.id, 'interface': row.interface, 'region_id': row.region_id,
                                         'region': row.region_id, 'url': row.url})
    return list(found.values())


class Texts:
    """One version of the catalog and the texts that were made of it.

    ``filtered``: endpoint filtering is in use; ``service_providers``: what tokens say of clouds that take our
    users; ``by_user``: URLs depend on the user as well as on the project; ``texts``: JSON
    text by (project id or None, user id or None).
    """

    def __init__(self, catalog, filtered=False, service_providers=b''):
        self.catalog = catalog
        self.service_providers = service_providers
        self.filtered = filtered
        self.by_user = any('(user_id)' in endpoint['url'] for service in catalog for endpoint in service['endpoints'])
        self.texts = {}


def providers(connection):
    """``,"service_providers":[...]`` for the answers about tokens, or nothing where there are none."""
    rows = connection.execute(sa.select(service_providers.c.id, service_providers.c.auth_url, service_providers.c.sp_url).where(
        service_providers.c.enabled.is_(True)).order_by(service_providers.c.id)).all()
    found = [{'id': row.id, 'auth_url': row.auth_url, 'sp_url': row.sp_url} for row in rows]
    return b',"service_providers":' + orjson.dumps(found) if found else b''


def filtering(connection):
    """True if any project is associated with an endpoint or an endpoint group."""
    return any(connection.execute(sa.select(table.c.project_id).limit(1)).first() is not None
               for table in (project_endpoints, project_endpoint_groups))


def hidden(connection, project_id):
    """Ids of the endpoints that endpoint filtering hides from a project; a project without any association sees all.

    :returns: a set, or None where the project is not filtered.
    """
    own = set(connection.execute(sa.select(project_endpoints.c.endpoint_id)
                                 .where(project_endpoints.c.project_id == project_id)).scalars())
    filters = connection.execute(
        sa.select(endpoint_groups.c.filters).join_from(
            project_endpoint_groups, endpoint_groups, project_endpoint_groups.c.endpoint_group_id == endpoint_groups.c.id)
        .where(project_endpoint_groups.c.project_id == project_id)).scalars().all()
    if not own and not filters:
        return None
    every = connection.execute(sa.select(endpoints.c.id, endpoints.c.service_id, endpoints.c.interface,
                                         endpoints.c.region_id)).all()
    for row in every:
        if any(matches(row._mapping, wanted) for wanted in filters):
            own.add(row.id)
    return {row.id for row in every} - own


def matches(endpoint, filters):
    """True if an endpoint (a mapping) has every attribute that an endpoint group's ``filters`` name."""
    return all(endpoint.get(name) == value for name, value in filters.items()
               if name in ('service_id', 'interface', 'region_id', 'id', 'enabled'))


def substitute(catalog, project_id, user_id='', without=None):
    """The catalog for one token as JSON text: placeholders filled in; endpoints that need a project left out without one.

    :param without: ids of endpoints to leave out.
    """
    found = []
    for service in catalog:
        kept = []
        for endpoint in service['endpoints']:
            if without is not None and endpoint['id'] in without:
                continue
            url = endpoint['url']
            if '(' in url:
                url = _fill(url, project_id, user_id)
                if url is None:
                    continue
            kept.append({**endpoint, 'url': url})
        found.append({**service, 'endpoints': kept})
    return orjson.dumps(found)


def _fill(url, project_id, user_id):
    for name in ('tenant_id', 'project_id'):
        for form in (f'$({name})s', f'%({name})s'):
            if form in url:
                if not project_id:
                    return None
                url = url.replace(form, project_id)
    for form in ('$(user_id)s', '%(user_id)s'):
        url = url.replace(form, user_id)
    return url
