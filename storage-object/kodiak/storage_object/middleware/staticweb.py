"""Containers as web sites: index and error pages, listings in HTML."""
import html

import orjson

from ..proxy.http import Filter, Response, error, from_wsgi, is_true, quote


class StaticWeb(Filter):
    """``X-Container-Meta-Web-Index``, ``-Error``, ``-Listings``, ``-Listings-CSS``, ``-Directory-Type``."""

    def handle(self, request):
        """Serve pages to whoever browses (no token, or ``X-Web-Mode: true``)."""
        if request.method not in ('GET', 'HEAD') or request.environ.get('kodiak.sub'):
            return self.next(request)
        split = request.split()
        proxy = request.environ.get('kodiak.proxy')
        if split is None or split[2] is None or proxy is None:
            return self.next(request)
        known = request.environ.get('kodiak.identity') or request.environ.get('HTTP_X_IDENTITY_STATUS') == 'Confirmed'
        if known and not is_true(request.headers.get('X-Web-Mode', '')) and not request.environ.get('kodiak.temporary'):
            return self.next(request)
        info = proxy.infos.get(request, split[1], split[2])
        meta = {name[4:]: from_wsgi(value) for name, value in info['meta'].items() if name.startswith('web-')}
        if not meta:
            return self.next(request)
        if split[3] is None:
            return self._container(request, split, meta)
        return self._object(request, split, meta)

    def _sub(self, request, path, method=None):
        made = request.sub(method or request.method, path, source='SW')
        for name, value in request.headers.items():
            if name.startswith('If-') or name == 'Range':
                made.headers[name] = value
        return self.next(made)

    def _failed(self, request, split, meta, answer):
        suffix = meta.get('error')
        if suffix and answer.status in (401, 404):
            page = self.next(request.sub('GET', f'/{split[0]}/{split[1]}/{split[2]}/{answer.status}{suffix}', source='SW'))
            if page.ok:
                page.status = answer.status
                return page
            page.drain()
        return answer

    @staticmethod
    def _slash(request):
        get = request.environ.get
        where = f'{get("wsgi.url_scheme")}://{get("HTTP_HOST", "")}{quote(get("kodiak.client_path", request.path))}/'
        if get('kodiak.temporary'):
            where += '?' + get('kodiak.temporary')['query']
        return Response(301, b'', {'Location': where}, content_type='text/html')

    def _container(self, request, split, meta):
        if 'index' not in meta and not is_true(meta.get('listings', '')):
            return self.next(request)
        if not request.path.endswith('/'):
            return self._slash(request)
        if meta.get('index'):
            answer = self._sub(request, request.path + meta['index'])
            if answer.status != 404:
                return answer if answer.status // 100 in (2, 3) else self._failed(request, split, meta, answer)
            answer.drain()
        return self._listing(request, split, meta, '')

    def _object(self, request, split, meta):
        answer = self.next(request)
        kind = meta.get('directory-type', 'application/directory')
        directory = answer.ok and answer.headers.get('Content-Type', '').split(';')[0] == kind and int(
            answer.headers.get('Content-Length', 0)) <= 1
        if answer.status // 100 in (2, 3) and not directory:
            return answer
        if answer.status not in (404, 200, 206):
            return self._failed(request, split, meta, answer)
        if 'index' not in meta and not is_true(meta.get('listings', '')):
            return self._failed(request, split, meta, answer)
        name = split[3]
        if meta.get('index'):
            page = self._sub(request, request.path.rstrip('/') + '/' + meta['index'])
            if page.status // 100 in (2, 3):
                if not name.endswith('/'):
                    page.close()
                    return self._slash(request)
                return page
            page.drain()
        if not name.endswith('/'):
            found = self.next(request.sub('GET', f'/{split[0]}/{split[1]}/{split[2]}', source='SW', query={
                'format': 'json', 'prefix': name + '/', 'limit': '1'}))
            if not found.ok or not orjson.loads(found.read()):
                return self._failed(request, split, meta, error(404))
            return self._slash(request)
        return self._listing(request, split, meta, name)

    def _listing(self, request, split, meta, prefix):
        label = html.escape(f'/{split[0]}/{split[1]}/{split[2]}/{prefix}')
        if not is_true(meta.get('listings', '')):
            return self._failed(request, split, meta, error(404))
        found = self.next(request.sub('GET', f'/{split[0]}/{split[1]}/{split[2]}', source='SW', query={
            'format': 'json', 'prefix': prefix, 'delimiter': '/'}))
        if not found.ok:
            return self._failed(request, split, meta, found)
        rows = orjson.loads(found.read())
        if prefix and not rows:
            return self._failed(request, split, meta, error(404))
        label = html.escape(meta.get('listings-label', '')) + html.escape(prefix) if 'listings-label' in meta else label
        css = meta.get('listings-css')
        if css and not css.startswith('/') and '://' not in css:
            css = '../' * prefix.count('/') + css
        style = ('<style type="text/css">h1 {font-size: 1em;} th {text-align: left;} td, th {padding-right: 1em;}</style>'
                 if not css else f'<link rel="stylesheet" type="text/css" href="{html.escape(quote(css, ":/"))}" />')
        lines = [(f'<!DOCTYPE html>\n<html>\n <head>\n  <title>Listing of {label}</title>\n  {style}\n </head>\n <body>\n'
                 f'  <h1 id="title">Listing of {label}</h1>\n  <table id="listing">\n'
                 '   <tr id="heading"><th class="colname">Name</th><th class="colsize">Size</th>'
                  '<th class="coldate">Date</th></tr>\n')]
        temporary = request.environ.get('kodiak.temporary')
        # Links lead on by the same temporary URL, and not to above what it is for.
        query = '?' + html.escape(temporary['query']) if temporary else ''
        if prefix and (not temporary or len(prefix) > len(temporary['prefix'])):
            above = f'../{query}'
            lines.append(f'   <tr id="parent" class="item"><td class="colname"><a href="{above}">../</a></td>'
                         '<td class="colsize">&nbsp;</td><td class="coldate">&nbsp;</td></tr>\n')
        for row in rows:
            name = row.get('subdir', row.get('name'))[len(prefix):]
            link = f'<a href="./{html.escape(quote(name))}{query}">{html.escape(name)}</a>'
            if 'subdir' in row:
                lines.append(f'   <tr class="item subdir"><td class="colname">{link}</td><td class="colsize">&nbsp;</td>'
                             '<td class="coldate">&nbsp;</td></tr>\n')
            elif name:
                kind = ' '.join('type-' + html.escape(part) for part in row['content_type'].split(';')[0].split('/'))
                moment = html.escape(row['last_modified'][:19].replace('T', ' '))
                size = _size(row['bytes'])
                lines.append(f'   <tr class="item {kind}"><td class="colname">{link}</td><td class="colsize">{size}</td>'
                             f'<td class="coldate">{moment}</td></tr>\n')
        lines.append('  </table>\n </body>\n</html>\n')
        return Response(200, ''.join(lines).encode(), content_type='text/html; charset=UTF-8')


def _size(count):
    for unit in ('', 'KB', 'MB', 'GB'):
        if count < 1000 or unit == 'GB':
            return f'{count:.0f} {unit}'.strip() if not unit else f'{count:.1f} {unit}'
        count /= 1024
    return str(count)
