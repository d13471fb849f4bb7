"""What a host offers: processors, memory, disk, and the traits that placement knows it by."""
import os

from kodiak.compute.drivers.libvirt import domain

# Always there with this driver.
TRAITS = ('COMPUTE_NODE', 'COMPUTE_DEVICE_TAGGING', 'COMPUTE_NET_ATTACH_INTERFACE', 'COMPUTE_NET_ATTACH_INTERFACE_WITH_TAG',
          'COMPUTE_VOLUME_ATTACH', 'COMPUTE_VOLUME_ATTACH_WITH_TAG', 'COMPUTE_IMAGE_TYPE_QCOW2', 'COMPUTE_IMAGE_TYPE_RAW',
          'COMPUTE_IMAGE_TYPE_ISO', 'COMPUTE_IMAGE_TYPE_AMI', 'COMPUTE_IMAGE_TYPE_VDI', 'COMPUTE_IMAGE_TYPE_VHD',
          'COMPUTE_IMAGE_TYPE_VHDX', 'COMPUTE_IMAGE_TYPE_VMDK', 'COMPUTE_FIRMWARE_BIOS', 'COMPUTE_ARCH_X86_64',
          'COMPUTE_RESCUE_BFV', 'COMPUTE_SAME_HOST_COLD_MIGRATE', 'COMPUTE_NET_VIF_MODEL_VIRTIO',
          'COMPUTE_NET_VIF_MODEL_E1000', 'COMPUTE_NET_VIF_MODEL_E1000E', 'COMPUTE_NET_VIF_MODEL_RTL8139')
MODELS = {'disk': ('bus', 'COMPUTE_STORAGE_BUS_', {'virtio', 'scsi', 'sata', 'ide', 'usb', 'fdc'}),
          'video': ('modelType', 'COMPUTE_GRAPHICS_MODEL_', {'vga', 'cirrus', 'qxl', 'virtio', 'bochs', 'vmvga', 'none'})}
CPU_TRAITS = {flag: 'HW_CPU_X86_' + name for flag, name in {
    'mmx': 'MMX', 'sse': 'SSE', 'sse2': 'SSE2', 'pni': 'SSE3', 'ssse3': 'SSSE3', 'sse4.1': 'SSE41', 'sse4.2': 'SSE42',
    'sse4a': 'SSE4A', 'avx': 'AVX', 'avx2': 'AVX2', 'avx512f': 'AVX512F', 'avx512cd': 'AVX512CD', 'avx512bw': 'AVX512BW',
    'avx512dq': 'AVX512DQ', 'avx512vl': 'AVX512VL', 'aes': 'AESNI', 'pclmuldq': 'CLMUL', 'fma': 'FMA3', 'f16c': 'F16C',
    'bmi1': 'BMI', 'bmi2': 'BMI2', 'abm': 'ABM', 'sha-ni': 'SHA', 'pdpe1gb': 'PDPE1GB', 'vmx': 'VMX', 'svm': 'SVM',
}.items()}


def describe(connection, platform, disk_folder):
    """The driver's part of ``agent.state.Resources``, as a dictionary."""
    _model, memory, cpus, _mhz, _nodes, sockets, cores, threads = connection.getInfo()
    stat = os.statvfs(disk_folder)
    used = _memory_used()
    cpu = _cpu(connection)
    return {
        'hypervisor_type': connection.getType(), 'hypervisor_version': connection.getVersion(), 'vcpus': cpus,
        'memory_mb': memory, 'memory_used_mb': used,
        'disk_gb': stat.f_blocks * stat.f_frsize >> 30, 'disk_free_gb': stat.f_bavail * stat.f_frsize >> 30,
        'running': connection.numOfDomains(), 'uptime': uptime(),
        'cpu_info': {'arch': platform.arch, **cpu,
                     'topology': {'sockets': sockets, 'cores': cores, 'threads': threads, 'cells': 1}},
        'architectures': [[platform.arch, platform.kind, 'hvm'], ['i686', platform.kind, 'hvm']],
        'traits': sorted({*TRAITS, *_device_traits(connection, platform),
                          *_cpu_traits(cpu['features'] if platform.kind == 'kvm' else [])}),
    }


def uptime():
    """How long the host runs and how busy it is, as ``uptime`` prints it."""
    with open('/proc/uptime', encoding='ascii') as file:
        seconds = float(file.read().split()[0])
    days, rest = divmod(int(seconds), 86400)
    load = ', '.join(f'{value:.2f}' for value in os.getloadavg())
    return f' up {days} days, {rest // 3600}:{rest % 3600 // 60:02d},  load average: {load}'


def _memory_used():
    with open('/proc/meminfo', encoding='ascii') as file:
        values = {name: int(rest.split()[0]) for name, _, rest in (line.partition(':') for line in file)}
    return (values['MemTotal'] - values.get('MemAvailable', values['MemFree'])) >> 10


def _cpu(connection):
    host = domain.parse(connection.getCapabilities()).find('./host/cpu')
    if host is None:
        return {'model': '', 'vendor': '', 'features': []}
    return {'model': host.findtext('model', ''), 'vendor': host.findtext('vendor', ''),
            'features': sorted(feature.get('name') for feature in host.iterfind('feature'))}


def _cpu_traits(features):
    return {CPU_TRAITS[flag] for flag in features if flag in CPU_TRAITS}


def _device_traits(connection, platform):
    """Buses and video models that QEMU says it has."""
    root = domain.parse(connection.getDomainCapabilities(None, platform.arch, 'pc', platform.kind))
    traits = set()
    for device, (wanted, prefix, known) in MODELS.items():
        for value in root.iterfind(f"./devices/{device}/enum[@name='{wanted}']/value"):
            if value.text in known:
                traits.add(prefix + value.text.upper())
    return traits
