"""Default policy rules under their Glance names: those that several endpoints share, and those that no endpoint carries."""
ADMIN = 'role:admin'
SERVICE = 'role:service or role:admin'
_OWNER = 'project_id:%(project_id)s'
_MEMBER = 'project_id:%(member_id)s'
_SEEN = f"{_OWNER} or {_MEMBER} or 'community':%(visibility)s or 'public':%(visibility)s or 'shared':%(visibility)s"
PROJECT_MEMBER = f'role:admin or (role:member and {_OWNER})'
PROJECT_READER = f'role:admin or (role:reader and {_OWNER})'
CREATE = f'role:admin or (role:member and {_OWNER} and project_id:%(owner)s)'
SHOW = f'role:admin or (role:reader and ({_SEEN}))'
DOWNLOAD = f'role:admin or (role:member and ({_SEEN}))'
READER = 'role:admin or role:reader'
NAMESPACE = f"role:admin or (role:reader and ({_OWNER} or 'public':%(visibility)s))"
LOCATE = f'role:service or role:admin or (role:member and {_OWNER})'
#: The method decides further: copy_image or modify_image.
IMPORT = 'role:admin or role:member'
SHARED_MEMBER = f'role:admin or (role:member and {_MEMBER})'
READER_OR_SHARED_MEMBER = f'role:admin or (role:reader and ({_OWNER} or {_MEMBER}))'

#: Rules that are asked about inside of handlers: (name, check, description).
FURTHER = [
    ('context_is_admin', ADMIN, 'Who counts as administrator'),
    ('default', ADMIN, 'Rules that are named nowhere'),
    ('service_api', SERVICE, 'Calls that only other services make'),
    ('publicize_image', ADMIN, 'Make an image public'),
    ('communitize_image', PROJECT_MEMBER, 'Make an image a community image'),
    ('get_image_location', PROJECT_READER, 'Read where the data of an image lies'),
    ('set_image_location', PROJECT_MEMBER, 'Set where the data of an image lies'),
    ('delete_image_location', ADMIN, 'Take a location from an image'),
    ('copy_image', ADMIN, 'Copy the data of an image to further stores'),
    ('download_from_store', DOWNLOAD, 'Choose the stores that a download tries first'),
]
