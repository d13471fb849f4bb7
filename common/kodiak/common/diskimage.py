"""What a disk image that was fetched really is, judged by its headers alone before any tool opens it.

A crafted image can name other files of the host as its backing or data file, so nothing is to be asked to guess its format.
"""
#: What an image service calls a format, and what QEMU calls it.
FORMATS = {'qcow2': 'qcow2', 'raw': 'raw', 'iso': 'raw', 'ami': 'raw', 'vmdk': 'vmdk', 'vdi': 'vdi', 'vhd': 'vpc',
           'vhdx': 'vhdx', 'ploop': 'parallels'}
#: What the data of a raw image may be: a whole disk begins with a partition table, which the inspector names.
RAW = ('raw', 'gpt', 'iso')


class Refused(Exception):
    """It is not what the image service said, or is not safe to use. Its text is a sentence for the owner of the image."""


def judge(path, disk_format, raw=RAW):
    """The QEMU name of the format of a file.

    :param disk_format: what the image service says. :param raw: what the data of a raw image may be.
    :raises Refused: the format is not known here, the data is of another, or is not safe to use.
    """
    from oslo_utils.imageutils import format_inspector

    wanted = FORMATS.get(disk_format)
    if wanted is None:
        raise Refused(f'Images of the format {disk_format!r} cannot be used here.')
    try:
        found = format_inspector.detect_file_format(path)
        found.safety_check()
    except (format_inspector.ImageFormatError, format_inspector.SafetyCheckFailed) as error:
        raise Refused(f'The image is not safe to use: {error}') from error
    name = str(found)
    name = 'raw' if name in raw else {'vhd': 'vpc'}.get(name, name)
    if name != wanted:
        raise Refused(f'The image says {disk_format}, but its data is {name}.')
    return wanted
