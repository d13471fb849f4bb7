"""Who may what of S3: policies of buckets, lists of buckets and objects; where they say nothing, what the Swift API says."""
from . import acl
from .errors import S3Error
from .policy import facts_of
from .tagging import stored

OF_BUCKET = {'ListBucket': 'READ', 'ListBucketVersions': 'READ', 'ListBucketMultipartUploads': 'READ', 'PutObject': 'WRITE',
             'DeleteObject': 'WRITE', 'AbortMultipartUpload': 'WRITE', 'ListMultipartUploadParts': 'WRITE',
             'GetBucketAcl': 'READ_ACP', 'PutBucketAcl': 'WRITE_ACP'}
OF_OBJECT = {'GetObject': 'READ', 'GetObjectVersion': 'READ', 'GetObjectAttributes': 'READ', 'GetObjectAcl': 'READ_ACP',
             'PutObjectAcl': 'WRITE_ACP'}
# What a policy cannot take from the bucket's owner, who could not mend it then.
OWNERS = {'GetBucketPolicy', 'PutBucketPolicy', 'DeleteBucketPolicy'}


def principals(call):
    """The names of who asks, as policies and lists have them; none for nobody."""
    identity = call.request.environ.get('kodiak.identity') if call.signature is not None else None
    if not identity:
        return frozenset()
    account = call.account
    names, projects = {identity.get('user'), identity.get('user_name'), call.user_name}, {account, account.partition('_')[2]}
    projects.add(identity.get('project'))
    users = {name for name in names if name} | {name.partition(':')[2] for name in names if name and ':' in name}
    known = {f'arn:aws:iam::{project}:{who}' for project in projects if project for who in (
        'root', *(f'user/{user}' for user in users))}
    return frozenset({name for name in (*names, *projects) if name} | known)


class Access:
    """Decides.

    :param api: the S3 filter.
    """

    def __init__(self, api):
        self.api = api

    def check(self, call, action, key=None):
        """Refuse, or let the call's requests of the Swift API pass, or leave it to them to be asked there.

        :param action: as policies name it, without ``s3:``.
        """
        call.free = False
        info = self.api.info(call)
        if not info.ok:
            return
        call.owned = self._owns(call)
        who = principals(call)
        verdict = self._policy(call, action, key, who)
        if verdict == 'deny' and not (call.owned and action in OWNERS):
            raise S3Error('AccessDenied')
        if call.owned:
            return
        call.free = verdict == 'allow'
        if not call.free:
            call.free = call.by_list = self._listed(call, action, key, who)
        call.free = call.free or self._told_missing(call, action, key, who)

    def _told_missing(self, call, action, key, who):
        # Who may list a bucket may hear that something is not in it.
        if action not in ('GetObject', 'GetObjectVersion') or self.api.head(call, key).status != 404:
            return False
        return self._policy(call, 'ListBucket', None, who, {'s3:prefix': key}) == 'allow' or (
            self._listed(call, 'ListBucket', None, who))

    @staticmethod
    def _owns(call):
        environ = call.request.environ
        authorize = environ.get('kodiak.authorize')
        authorizer = getattr(authorize, '__self__', None)
        identity = environ.get('kodiak.identity')
        return bool(authorizer is not None and identity and authorizer.is_owner(call.request, identity, call.place, call.bucket))

    def _policy(self, call, action, key, who, more=None):
        policy = self.api.configs.get(call, 'policy')
        if policy is None:
            return None
        if not who and policy.public and (self.api.configs.get(call, 'publicAccessBlock') or {}).get('RestrictPublicBuckets'):
            return None
        facts = {**facts_of(call), **(more or {})}
        if key is not None and policy.asks('s3:existingobjecttag/'):
            facts.update((f's3:existingobjecttag/{k.lower()}', v) for k, v in stored(self.api.head(call, key).headers))
        resource = f'arn:aws:s3:::{call.bucket}' + (f'/{key}' if key is not None else '')
        return policy.verdict(who, 's3:' + action, resource, facts)

    def _listed(self, call, action, key, who):
        if action in OF_BUCKET:
            made = acl.Acl.stored(self.api.info(call)['sysmeta'].get('s3api-acl'))
        elif action in OF_OBJECT and key is not None:
            made = acl.Acl.stored(self.api.head(call, key).headers.get(acl.OBJECT))
        else:
            return False
        if made is None or self.ownership(call) == acl.ENFORCED:
            return False
        if made.public and (self.api.configs.get(call, 'publicAccessBlock') or {}).get('IgnorePublicAcls'):
            made.grants = [grant for grant in made.grants if grant[0] not in (acl.ALL, acl.KNOWN)]
        return made.allows(who, OF_BUCKET.get(action) or OF_OBJECT[action])

    def ownership(self, call):
        """The rule of a bucket's ownership controls, of :data:`.acl.OWNERSHIPS`; None where it has none."""
        return self.api.configs.get(call, 'ownershipControls')

    def refuse_public(self, call, made):
        """AccessDenied where a bucket blocks lists that are public."""
        if made is not None and made.public and (self.api.configs.get(call, 'publicAccessBlock') or {}).get('BlockPublicAcls'):
            raise S3Error('AccessDenied')
