"""S3's error documents."""
from xml.sax.saxutils import escape

from ..proxy.http import Response

CODES = {
    'AccessDenied': (403, 'Access Denied.'), 'AuthorizationHeaderMalformed': (400, 'The authorization header is malformed.'),
    'AuthorizationQueryParametersError': (400, 'The query parameters of the signature are wrong.'),
    'BadDigest': (400, 'The Content-MD5 you specified did not match what we received.'),
    'AccessControlListNotSupported': (400, 'The bucket does not allow ACLs'),
    'AccessForbidden': (403, 'CORSResponse: This CORS request is not allowed.'),
    'BadRequest': (400, 'Bad Request'),
    'BucketAlreadyExists': (409, 'The requested bucket name is not available.'),
    'BucketAlreadyOwnedByYou': (409, 'Your previous request to create the named bucket succeeded and you already own it.'),
    'BucketNotEmpty': (409, 'The bucket you tried to delete is not empty.'),
    'ConditionalRequestConflict': (409, 'Another write of this key is under way. Please try again.'),
    'EntityTooLarge': (400, 'Your proposed upload exceeds the maximum allowed object size.'),
    'EntityTooSmall': (400, 'Your proposed upload is smaller than the minimum allowed object size.'),
    'IncompleteBody': (400, 'You did not provide the number of bytes specified by the Content-Length header.'),
    'InternalError': (500, 'We encountered an internal error. Please try again.'),
    'InvalidAccessKeyId': (403, 'The AWS Access Key Id you provided does not exist in our records.'),
    'InvalidArgument': (400, 'Invalid Argument.'), 'InvalidBucketName': (400, 'The specified bucket is not valid.'),
    'InvalidBucketAclWithObjectOwnership': (400, "Bucket cannot have ACLs set with ObjectOwnership's BucketOwnerEnforced setting"),
    'InvalidBucketState': (409, 'The request is not valid with the current state of the bucket.'),
    'InvalidDigest': (400, 'The Content-MD5 you specified was invalid.'),
    'InvalidPart': (400, ('One or more of the specified parts could not be found.  The part may not have been uploaded, or the '
                         "specified entity tag may not match the part's entity tag.")),
    'InvalidPartOrder': (400, ('The list of parts was not in ascending order. The parts list must be specified in order by part '
                              'number.')),
    'InvalidRange': (416, 'The requested range cannot be satisfied.'), 'InvalidRequest': (400, 'Invalid Request.'),
    'InvalidEncryptionAlgorithmError': (400, 'The Encryption request you specified is not valid. Supported value: AES256.'),
    'InvalidLocationConstraint': (400, 'The specified location-constraint is not valid'),
    'InvalidPartNumber': (416, 'The requested partnumber is not satisfiable'),
    'InvalidPolicyDocument': (400, 'The content of the form does not meet the conditions specified in the policy document.'),
    'InvalidRetentionPeriod': (400, 'The retention period specified is not valid'),
    'InvalidStorageClass': (400, 'The storage class you specified is not valid'),
    'InvalidTargetBucketForLogging': (400, 'The target bucket for logging does not exist'),
    'InvalidTag': (400, 'The tag provided was not a valid tag.'),
    'KeyTooLongError': (400, 'Your key is too long.'), 'MalformedXML': (400, ('The XML you provided was not well-formed or did '
                                                                            'not validate against our published schema')),
    'MalformedACLError': (400, 'The XML you provided was not well-formed or did not validate against our published schema'),
    'MalformedPOSTRequest': (400, 'The body of your POST request is not well-formed multipart/form-data.'),
    'MalformedPolicy': (400, 'This policy contains invalid Json'),
    'MethodNotAllowed': (405, 'The specified method is not allowed against this resource.'),
    'MalformedTrailerError': (400, ('The request contained trailing data that was not well-formed or did not conform to our '
                                    'published schema.')),
    'MissingContentLength': (411, 'You must provide the Content-Length HTTP header.'),
    'NoSuchBucket': (404, 'The specified bucket does not exist.'), 'NoSuchKey': (404, 'The specified key does not exist.'),
    'NoSuchUpload': (404, ('The specified multipart upload does not exist. The upload ID might be invalid, or the multipart '
                          'upload might have been aborted or completed.')),
    'MissingSecurityHeader': (400, 'Your request was missing a required header.'),
    'NoSuchBucketPolicy': (404, 'The bucket policy does not exist'),
    'NoSuchCORSConfiguration': (404, 'The CORS configuration does not exist'),
    'NoSuchLifecycleConfiguration': (404, 'The lifecycle configuration does not exist'),
    'NoSuchTagSet': (404, 'The TagSet does not exist'),
    'NoSuchObjectLockConfiguration': (404, 'The specified object does not have a ObjectLock configuration'),
    'NoSuchPublicAccessBlockConfiguration': (404, 'The public access block configuration was not found'),
    'OwnershipControlsNotFoundError': (404, 'The bucket ownership controls were not found'),
    'ReplicationConfigurationNotFoundError': (404, 'The replication configuration was not found'),
    'ServerSideEncryptionConfigurationNotFoundError': (404, 'The server side encryption configuration was not found'),
    'NoSuchWebsiteConfiguration': (404, 'The specified bucket does not have a website configuration'),
    'ObjectLockConfigurationNotFoundError': (404, 'Object Lock configuration does not exist for this bucket'),
    'NoSuchVersion': (404, 'The specified version does not exist.'),
    'NotImplemented': (501, 'The requested resource is not implemented'),
    'PreconditionFailed': (412, 'At least one of the preconditions you specified did not hold.'),
    'RequestTimeTooSkewed': (403, "The difference between the request time and the server's time is too large."),
    'ServiceUnavailable': (503, 'Please reduce your request rate.'),
    'SignatureDoesNotMatch': (403, ('The request signature we calculated does not match the signature you provided. Check your '
                                   'key and signing method.')),
    'SlowDown': (503, 'Please reduce your request rate.'),
    'UnexpectedContent': (400, 'This request does not support content'),
    'UserKeyMustBeSpecified': (400, 'The bucket POST must contain the field that names the key.'),
    'XAmzContentSHA256Mismatch': (400, "The provided 'x-amz-content-sha256' header does not match what was computed."),
}


class S3Error(Exception):
    """Ends a request with an error document."""

    def __init__(self, code, message=None, headers=None, **details):
        super().__init__(code)
        self.code, self.headers = code, headers
        self.details = {name.replace('_', '-'): value for name, value in details.items()}
        self.status, text = CODES[code]
        self.message = message or text

    def response(self, trans):
        """The error's :class:`Response`."""
        more = ''.join(f'<{k}>{escape(str(v))}</{k}>' for k, v in self.details.items())
        body = (f"<?xml version='1.0' encoding='UTF-8'?>\n<Error><Code>{self.code}</Code><Message>{escape(self.message)}</Message>"
                f'{more}<RequestId>{escape(trans)}</RequestId></Error>')
        return Response(self.status, body.encode('utf-8', 'replace'), self.headers, content_type='application/xml')
