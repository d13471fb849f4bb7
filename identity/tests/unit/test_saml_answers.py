"""Answers of an identity provider that somebody has tampered with, and those that say less or other than they must."""
import copy
import datetime

import pytest

from kodiak.common import errors

pytest.importorskip('signxml')

from lxml import etree

from kodiak.identity.saml import answers, asking, documents, encryption, keys, metadata
from kodiak.identity.saml.documents import DS, SAML, SAMLP, name

IDP, SP, URL = 'https://idp.example', 'https://cloud.example/metadata', 'https://cloud.example/acs'
ASSERTION, SIGNATURE = name(SAML, 'Assertion'), name(DS, 'Signature')


@pytest.fixture(scope='module')
def held(tmp_path_factory):
    """Keys of the identity provider: ``current`` signs, ``next`` belongs to somebody else."""
    made = keys.Keys(str(tmp_path_factory.mktemp('keys')))
    made.setup('idp')
    return made


def make(held, *, sign='assertion', recipient=URL, audience=(SP,), request='_q', life=300, issuer=IDP, user='ann', stranger=False,
         change=lambda root: None):
    """A Response (root); ``change`` is done to it before it is signed."""
    now, end = asking.now_text(), asking.now_text(life)
    root = documents.element(SAMLP, 'Response', ID='_r', Version='2.0', IssueInstant=now, Destination=URL)
    documents.add(root, SAML, 'Issuer', issuer)
    documents.add(documents.add(root, SAMLP, 'Status'), SAMLP, 'StatusCode', Value=documents.SUCCESS)
    assertion = documents.add(root, SAML, 'Assertion', ID='_a', Version='2.0', IssueInstant=now)
    documents.add(assertion, SAML, 'Issuer', issuer)
    subject = documents.add(assertion, SAML, 'Subject')
    documents.add(subject, SAML, 'NameID', user)
    confirmation = documents.add(subject, SAML, 'SubjectConfirmation', Method=documents.BEARER)
    data = documents.add(confirmation, SAML, 'SubjectConfirmationData', NotOnOrAfter=end, Recipient=recipient)
    if request:
        root.set('InResponseTo', request)
        data.set('InResponseTo', request)
    conditions = documents.add(assertion, SAML, 'Conditions', NotBefore=now, NotOnOrAfter=end)
    if audience:
        restriction = documents.add(conditions, SAML, 'AudienceRestriction')
        for each in audience:
            documents.add(restriction, SAML, 'Audience', each)
    documents.add(documents.add(documents.add(assertion, SAML, 'AuthnStatement', AuthnInstant=now), SAML, 'AuthnContext'), SAML,
                  'AuthnContextClassRef', documents.PASSWORD)
    attribute = documents.add(documents.add(assertion, SAML, 'AttributeStatement'), SAML, 'Attribute', Name='uid')
    documents.add(attribute, SAML, 'AttributeValue', user)
    change(root)
    signing = held.signing()
    if stranger:
        signing = (held.decrypting()[1], held.certificates()[1])
    if sign == 'assertion':
        root.replace(assertion, documents.sign(assertion, signing))
    elif sign:
        root = documents.sign(root, signing)
    # As it comes over the wire.
    return documents.parse(documents.write(root))


def read(held, root, request='_q', **more):
    """What is read of a Response."""
    description = metadata.Description(IDP, held.certificates()[:1], None, False)
    return answers.read(documents.parse(documents.write(root)), answers.Expected(description, SP, URL, request, **more))


def refused(held, root, **more):
    with pytest.raises((errors.Unauthorized, errors.BadRequest)) as caught:
        read(held, root, **more)
    return caught.value.message


@pytest.mark.parametrize('sign', ['assertion', 'response'])
def test_a_good_answer(held, sign):
    found = read(held, make(held, sign=sign))
    assert (found.issuer, found.id, found.name_id, found.session_end) == (IDP, '_a', 'ann', None)
    said = found.for_mapping()
    assert said['uid'] == said['MELLON_uid'] == said['REMOTE_USER'] == ['ann'] and said['Shib-Identity-Provider'] == [IDP]


def evil(assertion, remove_signature=True):
    """A copy of an assertion that speaks of root."""
    made = copy.deepcopy(assertion)
    made.set('ID', '_evil')
    for each in made.iter(name(SAML, 'NameID'), name(SAML, 'AttributeValue')):
        each.text = 'root'
    if remove_signature:
        for each in made.findall(SIGNATURE):
            made.remove(each)
    return made


def around_response(root):
    """The signed Response within the signature of a forged one (XSW 1)."""
    forged, signed = copy.deepcopy(root), copy.deepcopy(root)
    signature = forged.find(SIGNATURE)
    forged.set('ID', '_evil')
    forged.replace(forged.find(ASSERTION), evil(forged.find(ASSERTION)))
    signed.remove(signed.find(SIGNATURE))
    signature.append(signed)
    return forged


def beside_response(root):
    """The signed Response as a child of the forged one, its signature detached (XSW 2)."""
    forged, signed = copy.deepcopy(root), copy.deepcopy(root)
    forged.set('ID', '_evil')
    forged.replace(forged.find(ASSERTION), evil(forged.find(ASSERTION)))
    signed.remove(signed.find(SIGNATURE))
    forged.find(SIGNATURE).addprevious(signed)
    return forged


def before_assertion(root):
    """A forged assertion before the signed one (XSW 3)."""
    root.find(ASSERTION).addprevious(evil(root.find(ASSERTION)))
    return root


def around_assertion(root):
    """The signed assertion within a forged one (XSW 4)."""
    signed = root.find(ASSERTION)
    made = evil(signed)
    root.replace(signed, made)
    made.append(signed)
    return root


def forged_has_the_signature(root):
    """The forged assertion has the signature, what it covers stands at the end (XSW 5)."""
    signed = root.find(ASSERTION)
    made = evil(signed, remove_signature=False)
    root.replace(signed, made)
    signed.remove(signed.find(SIGNATURE))
    root.append(signed)
    return root


def within_the_signature(root):
    """As before, but what it covers stands within the signature (XSW 6)."""
    signed = root.find(ASSERTION)
    made = evil(signed, remove_signature=False)
    root.replace(signed, made)
    signed.remove(signed.find(SIGNATURE))
    made.find(SIGNATURE).append(signed)
    return root


def in_extensions(root):
    """A forged assertion in an element that may hold anything (XSW 7)."""
    signed = root.find(ASSERTION)
    made = documents.element(SAMLP, 'Extensions')
    made.append(evil(signed))
    signed.addprevious(made)
    return root


def in_an_object(root):
    """The forged assertion has the signature, and within that an object with what it covers (XSW 8)."""
    signed = root.find(ASSERTION)
    made = evil(signed, remove_signature=False)
    root.replace(signed, made)
    signed.remove(signed.find(SIGNATURE))
    documents.add(made.find(SIGNATURE), DS, 'Object').append(signed)
    return root


def same_id(root):
    """A forged assertion with the ID of the signed one."""
    made = evil(root.find(ASSERTION))
    made.set('ID', '_a')
    documents.add(root, SAMLP, 'Extensions').append(made)
    return root


@pytest.mark.parametrize('wrap', [around_response, beside_response])
def test_signed_responses_that_are_wrapped(held, wrap):
    refused(held, wrap(make(held, sign='response')))


@pytest.mark.parametrize('wrap', [before_assertion, around_assertion, forged_has_the_signature, within_the_signature, in_extensions,
                                  in_an_object, same_id])
def test_signed_assertions_that_are_wrapped(held, wrap):
    refused(held, wrap(make(held)))


def test_two_signatures_and_signatures_elsewhere(held):
    root = make(held)
    root.find(ASSERTION).append(copy.deepcopy(root.find(f'{ASSERTION}/{SIGNATURE}')))
    refused(held, root)
    root = make(held)
    root.append(root.find(f'{ASSERTION}/{SIGNATURE}'))
    refused(held, root)
    root = make(held)
    root.find(f'{ASSERTION}/{SIGNATURE}//{name(DS, "Reference")}').set('URI', '')
    refused(held, root)
    root = make(held)
    method = root.find(f'{ASSERTION}/{SIGNATURE}//{name(DS, "SignatureMethod")}')
    method.set('Algorithm', 'http://www.w3.org/2001/04/xmldsig-more#hmac-sha256')
    refused(held, root)
    assert 'not signed' in refused(held, make(held, sign=None))
    assert 'known of it' in refused(held, make(held, stranger=True))


def test_a_comment_cuts_no_name_short(held):
    root = make(held, user='ann@example.org.evil.example')
    text = documents.write(root).replace(b'ann@example.org.evil', b'ann@example.org<!-- x -->.evil')
    description = metadata.Description(IDP, held.certificates()[:1], None, False)
    found = answers.read(documents.parse(text), answers.Expected(description, SP, URL, '_q'))
    assert found.name_id == 'ann@example.org.evil.example' and found.attributes['uid'] == [found.name_id]


def edit(path, **attributes):
    def change(root):
        found = root.find(path)
        for key, value in attributes.items():
            if value is None:
                del found.attrib[key]
            else:
                found.set(key, value)
    return change


DATA = f".//{name(SAML, 'SubjectConfirmationData')}"


@pytest.mark.parametrize(('how', 'reason'), [
    ({'recipient': 'https://other.example'}, 'for who brings it'),
    ({'audience': ('https://other.example',)}, 'for somebody else'),
    ({'audience': ()}, 'for whom'),
    ({'request': '_other'}, 'another question'),
    ({'request': None}, 'another question'),
    ({'life': -120}, 'for who brings it'),
    ({'issuer': 'https://other.example'}, 'identity provider'),
    ({'change': edit(DATA, NotOnOrAfter=None)}, 'for who brings it'),
    ({'change': edit(DATA, NotBefore='2020-01-01T00:00:00Z')}, 'for who brings it'),
    ({'change': edit(f".//{name(SAML, 'SubjectConfirmation')}", Method=documents.BEARER + 's')}, 'for who brings it'),
    ({'change': edit(f".//{name(SAML, 'Conditions')}", NotBefore='2100-01-01T00:00:00Z')}, 'not valid yet'),
    ({'change': edit(f".//{name(SAML, 'Conditions')}", NotOnOrAfter='2020-01-01T00:00:00Z')}, 'any more'),
    ({'change': edit(f".//{name(SAML, 'Conditions')}", NotOnOrAfter='soon')}, 'no time'),
    ({'change': edit(ASSERTION, IssueInstant='2020-01-01T00:00:00Z')}, 'too old'),
    ({'change': edit(ASSERTION, IssueInstant='2100-01-01T00:00:00Z')}, 'future'),
    ({'change': edit(ASSERTION, Version='1.1')}, 'SAML 2.0'),
    ({'change': edit(f".//{name(SAML, 'AuthnStatement')}", SessionNotOnOrAfter='2020-01-01T00:00:00Z')}, 'session'),
    ({'change': lambda root: root.find(ASSERTION).remove(root.find(f".//{name(SAML, 'AuthnStatement')}"))}, 'logged in'),
    ({'change': lambda root: root.find(ASSERTION).remove(root.find(f".//{name(SAML, 'Subject')}"))}, 'brings it'),
    ({'change': lambda root: documents.add(root.find(f".//{name(SAML, 'Conditions')}"), SAML, 'Condition')}, 'not known'),
    ({'change': edit('.', Destination='https://other.example')}, 'elsewhere'),
    ({'change': edit('.', Version='1.1')}, 'SAML 2.0'),
    ({'change': edit('.', IssueInstant='yesterday')}, 'no time'),
    ({'change': edit(f".//{name(SAMLP, 'StatusCode')}", Value='urn:oasis:names:tc:SAML:2.0:status:Requester')}, 'not confirmed'),
])
def test_what_an_answer_must_say(held, how, reason):
    assert reason in refused(held, make(held, **how))
    assert reason in refused(held, make(held, sign='response', **how))


def test_what_nobody_asked_for_is_taken_only_where_that_is_said(held):
    assert read(held, make(held, request=None, audience=()), request=None, audience=False).name_id == 'ann'
    # As Keystone says it: without conditions.
    bare = make(held, request=None, change=lambda root: root.find(ASSERTION).remove(root.find(f".//{name(SAML, 'Conditions')}")))
    assert read(held, bare, request=None, audience=False).name_id == 'ann'
    refused(held, make(held, audience=()), request=None, audience=False)
    refused(held, make(held, request=None, audience=('https://other.example',)), request=None, audience=False)


def test_a_passing_name_is_no_name(held):
    found = read(held, make(held, change=edit(f".//{name(SAML, 'NameID')}", Format=documents.TRANSIENT)))
    assert found.name_id is None and 'REMOTE_USER' not in found.for_mapping()


def test_times():
    assert metadata.moment('2026-01-02T03:04:05.1234567Z').isoformat() == '2026-01-02T03:04:05.123456+00:00'
    assert metadata.moment('2026-01-02T03:04:05+02:00').hour == 1
    assert metadata.moment('2026-01-02T03:04:05').tzinfo is datetime.UTC
    for wrong in (None, '', 'now', '9' * 50):
        with pytest.raises(errors.BadRequest):
            metadata.moment(wrong)


BOMB = b'<!DOCTYPE b [<!ENTITY a "aaaaaaaaaa">' + b''.join(
    b'<!ENTITY a%d "%s">' % (number, b'&a%d;' % (number - 1) * 10 if number else b'&a;' * 10) for number in range(9)) + b']>'


@pytest.mark.parametrize('text', [
    BOMB + b'<r>&a8;</r>', b'<!DOCTYPE r SYSTEM "http://evil.example/x.dtd"><r/>',
    b'<!DOCTYPE r [<!ENTITY e SYSTEM "file:///etc/passwd">]><r>&e;</r>',
    ('<?xml version="1.0" encoding="UTF-16"?><!DOCTYPE r [<!ENTITY e "x">]><r>&e;</r>').encode('utf-16'),
    b'<?xml version="1.0" encoding="UTF-7"?>+ADwAIQ-DOCTYPE r+AD4-<r/>', b'', b'\x00', b'<r>', b'<r>&unknown;</r>', b'\xff\xfe',
    b'<r>' * 5000 + b'</r>' * 5000])
def test_xml_that_is_not_read(text):
    with pytest.raises(errors.BadRequest):
        documents.parse(text)


def described(*, certificates=('a',), entity=IDP, more='', held=None):
    text = ''.join(f'<KeyDescriptor><KeyInfo xmlns="{DS}"><X509Data><X509Certificate>{each}</X509Certificate></X509Data></KeyInfo>'
                   '</KeyDescriptor>' for each in certificates)
    return (f'<EntityDescriptor xmlns="{documents.MD}" entityID="{entity}"{more}><IDPSSODescriptor '
            f'protocolSupportEnumeration="{SAMLP}">{text}<SingleSignOnService Binding="{documents.REDIRECT}" '
            'Location="https://idp.example/sso"/></IDPSSODescriptor></EntityDescriptor>')


def test_metadata(held):
    good = documents.certificate_text(held.certificates()[0])
    found = metadata.read(described(certificates=[good]).encode())
    assert found == metadata.Description(IDP, held.certificates()[:1], 'https://idp.example/sso', False)
    several = f'<EntitiesDescriptor xmlns="{documents.MD}">{described(certificates=[good])}' + described(
        certificates=[good], entity='https://other.example') + '</EntitiesDescriptor>'
    assert metadata.read(several.encode(), IDP) == found
    for wrong in (several, described(), described(certificates=[]), described(certificates=[good], entity=''),
                  described(certificates=[good], more=' validUntil="2020-01-01T00:00:00Z"'), '<x/>',
                  described(certificates=[good]).replace('https://idp.example/sso', 'javascript:alert(1)')):
        with pytest.raises(errors.BadRequest):
            metadata.read(wrong.encode())
    assert etree.fromstring(metadata.write(SP, held.certificates(), URL, [])).find(name(documents.MD, 'SPSSODescriptor')) is None


def encrypted(assertion, certificate, *, mode='gcm', digest='sha1', beside=False):
    """An EncryptedAssertion."""
    import base64
    import os

    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import padding
    from cryptography.hazmat.primitives.ciphers import Cipher, aead, algorithms, modes
    key, plain = os.urandom(32), etree.tostring(assertion, with_tail=False)
    if mode == 'gcm':
        start = os.urandom(12)
        content, method = start + aead.AESGCM(key).encrypt(start, plain, None), encryption.XENC11 + 'aes256-gcm'
    else:
        start, missing = os.urandom(16), 16 - len(plain) % 16
        writer = Cipher(algorithms.AES(key), modes.CBC(start)).encryptor()
        content = start + writer.update(plain + bytes([missing]) * missing) + writer.finalize()
        method = encryption.XENC + 'aes256-cbc'
    hashed = {'sha1': hashes.SHA1, 'sha256': hashes.SHA256}[digest]
    wrapped = certificate.public_key().encrypt(key, padding.OAEP(padding.MGF1(hashed()), hashed(), None))
    if digest == 'sha1':
        how = f'<x:EncryptionMethod Algorithm="{encryption.OAEP_SHA1}"/>'
    else:
        how = (f'<x:EncryptionMethod Algorithm="{encryption.OAEP}"><ds:DigestMethod Algorithm="{encryption.XENC}sha256"/>'
               f'<y:MGF xmlns:y="{encryption.XENC11}" Algorithm="{encryption.XENC11}mgf1sha256"/></x:EncryptionMethod>')
    inner = (f'<x:EncryptedKey>{how}<x:CipherData><x:CipherValue>{base64.b64encode(wrapped).decode()}</x:CipherValue>'
             '</x:CipherData></x:EncryptedKey>')
    return etree.fromstring(
        f'<saml:EncryptedAssertion xmlns:saml="{SAML}" xmlns:x="{encryption.XENC}" xmlns:ds="{DS}"><x:EncryptedData>'
        f'<x:EncryptionMethod Algorithm="{method}"/>' + ('' if beside else f'<ds:KeyInfo>{inner}</ds:KeyInfo>') +
        f'<x:CipherData><x:CipherValue>{base64.b64encode(content).decode()}</x:CipherValue></x:CipherData></x:EncryptedData>' +
        (inner if beside else '') + '</saml:EncryptedAssertion>')


def encrypt(held, **more):
    """Put the encrypted assertion in the place of the other."""
    def change(root):
        root.replace(root.find(ASSERTION), encrypted(root.find(ASSERTION), held.certificates()[1], **more))
        return root
    return change


@pytest.mark.parametrize('more', [{}, {'digest': 'sha256'}, {'beside': True}])
def test_encrypted_assertions(held, more):
    ours = {'keys': held.decrypting()}
    assert read(held, encrypt(held, **more)(make(held)), **ours).name_id == 'ann'
    assert read(held, make(held, sign='response', change=encrypt(held, **more)), **ours).name_id == 'ann'
    assert 'not signed' in refused(held, encrypt(held, **more)(make(held, sign=None)), **ours)
    assert 'cannot be decrypted' in refused(held, encrypt(held, **more)(make(held)), keys=held.decrypting()[:1])
    assert 'elsewhere' in refused(held, encrypt(held, **more)(make(held, change=edit('.', Destination='https://x'))), **ours)
    assert 'else' in refused(held, encrypt(held, **more)(make(held, audience=('https://x',))), **ours)


def test_cbc_is_taken_only_where_the_whole_response_is_signed(held):
    ours = {'keys': held.decrypting()}
    assert read(held, make(held, sign='response', change=encrypt(held, mode='cbc')), **ours).name_id == 'ann'
    assert 'AES-GCM' in refused(held, encrypt(held, mode='cbc')(make(held)), **ours)


def test_hostile_encryption(held):
    ours = {'keys': held.decrypting()}
    for change in ('CipherValue', 'EncryptedKey', 'EncryptionMethod', 'CipherData'):
        for index in (0, 1):
            root = encrypt(held)(make(held))
            found = list(root.iter(name(encryption.XENC, change)))
            if index < len(found):
                found[index].getparent().remove(found[index])
                refused(held, root, **ours)
    for text in ('', '!', 'AAAA', 'A' * 512):
        for index in (0, 1):
            root = encrypt(held)(make(held))
            list(root.iter(name(encryption.XENC, 'CipherValue')))[index].text = text
            refused(held, root, **ours)
    root = make(held)
    root.append(encrypted(root.find(ASSERTION), held.certificates()[1]))
    refused(held, root, **ours)
