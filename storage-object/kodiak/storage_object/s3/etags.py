"""The etags that S3's clients know objects by."""
ETAG = 'X-Object-Sysmeta-S3Api-Etag'


def shown_etag(answer):
    """An object's, of the Swift API's answer."""
    return answer.headers.get(ETAG) or answer.headers.get('Etag', '').strip('"')


def etag_of(text):
    """The one that a listing shows: a multipart upload's own, where the row has one."""
    etag, _, notes = text.partition(';')
    return notes.partition('s3_etag=')[2].partition(';')[0].strip() or etag
