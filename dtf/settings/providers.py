"""The settings of the providers of workers beyond this machine, one class a provider."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class KubernetesSettings:
    """Workers as pods or jobs of a Kubernetes cluster (docs/kubernetes.md)."""

    image: str = ""
    """Image of the workers; it holds dtf, and what the suites need."""
    kind: str = "pod"
    """pod, or job: what queues of the cluster (Kueue) and its quotas of jobs know."""
    namespace: str = ""
    """Where the workers live; empty: the namespace of the credentials."""
    kubeconfig: str = ""
    """Empty: the service account of the pod we run in, else KUBECONFIG, else ~/.kube/config."""
    context: str = ""
    """Context of the kubeconfig; empty: its current one."""
    service_account: str = ""
    """Of the workers; empty: the namespace's default, and no token of it is mounted."""
    image_pull_policy: str = ""
    image_pull_secret: str = ""
    node_selector: dict[str, str] = field(default_factory=dict)
    tolerations: dict[str, str] = field(default_factory=dict)
    """Taints that workers tolerate: key = "VALUE:EFFECT"; an empty VALUE means any, an empty EFFECT every."""
    spot_node_selector: dict[str, str] = field(default_factory=dict)
    """Added for a pool that takes spot capacity."""
    spot_tolerations: dict[str, str] = field(default_factory=dict)
    priority_class: str = ""
    environment: dict[str, str] = field(default_factory=dict)
    secret_environment: dict[str, str] = field(default_factory=dict)
    """Variables from secrets of the namespace: NAME = "SECRET/KEY"."""
    labels: dict[str, str] = field(default_factory=dict)
    """Added to each pod and job, as kueue.x-k8s.io/queue-name."""
    annotations: dict[str, str] = field(default_factory=dict)
    cpus: float = 1.0
    """Processors asked for where the pool names none."""
    memory: str = ""
    """Memory asked for, and the limit, where the pool names none: "2Gi"; empty: none."""
    gpu_resource: str = "nvidia.com/gpu"
    pod_template: str = ""
    """File (YAML or JSON) with a pod to begin from: volumes, init containers, security contexts."""
    termination_grace_seconds: float = 60.0
    """What an evicted worker has to give back what it holds."""
    image_patience_seconds: float = 60.0
    """An image that cannot be pulled for so long ends the launch."""
    scheduling_patience_seconds: float = 600.0
    """A pod that finds no node for so long ends the launch: the cluster's autoscaler takes minutes."""
    job_ttl_seconds: int = 86_400
    """A finished job whose resource manager is gone removes itself after so long."""


@dataclass(frozen=True, slots=True)
class SlurmSettings:
    """Workers as jobs of a Slurm cluster (docs/slurm.md)."""

    partition: str = ""
    """Empty: the cluster's default; so for the next four."""
    spot_partition: str = ""
    """Instead, for a pool that takes spot capacity: one whose jobs may be preempted."""
    account: str = ""
    qos: str = ""
    constraint: str = ""
    """Features that a node has to have: "a100&nvme"."""
    time_limit: str = ""
    """Of a worker, as sbatch takes it: "2-00:00:00"; empty: the partition's."""
    time_limit_grace_seconds: int = 120
    """So long before its time limit a worker is told to leave."""
    cpus: float = 0.0
    """Processors asked for where the pool names none; 0: as many as it has slots."""
    memory: str = ""
    """Memory asked for where the pool names none: "4G"; empty: the partition's default."""
    gpu_gres: str = "gpu"
    """Generic resource that GPUs are: "gpu", or "gpu:a100"."""
    options: dict[str, str] = field(default_factory=dict)
    """More options of sbatch, by their long names: reservation = "night"; an empty value is a flag."""
    environment: dict[str, str] = field(default_factory=dict)
    export: str = "ALL"
    """Variables of the resource manager that jobs are given, as sbatch --export takes it."""
    setup: str = ""
    """Lines of shell before the worker: "module load python/3.11"."""
    shell: str = "/bin/sh"
    """Reads these lines."""
    program: str = ""
    """How nodes call dtf; empty: by the Python that runs the resource manager, on a file system they share."""
    log_dir: str = ""
    """Where workers write, on a file system that nodes share; empty: logs/ of the state directory."""
    configuration: str = ""
    """slurm.conf; empty: SLURM_CONF, else where Slurm was built to look."""
    program_dir: str = ""
    """Directory of sbatch, squeue, scancel and sacct; empty: PATH."""
    poll_seconds: float = 5.0
    """Between looks at the queue."""
    pending_patience_seconds: float = 3600.0
    """A job that does not start for so long is given up."""


@dataclass(frozen=True, slots=True)
class Ec2Settings:
    """Workers as instances of Amazon EC2 (docs/ec2.md)."""

    region: str = ""
    """Empty: that of the credentials (AWS_REGION, the profile)."""
    profile: str = ""
    """Of ~/.aws; empty: the usual chain of boto3: variables, files, the role of the machine."""
    endpoint_url: str = ""
    """Of another EC2 than Amazon's."""
    launch_template: str = ""
    """Id ("lt-…") or name; what is set below goes over what it says."""
    launch_template_version: str = "$Default"
    image: str = ""
    """ "ami-…"; it holds dtf, or ec2.setup installs it."""
    instance_type: str = ""
    """ "m7i.large"; several with commas are tried in this order where there is no capacity."""
    subnet: str = ""
    """ "subnet-…"; several with commas are tried in this order. Empty: the default network's."""
    security_groups: str = ""
    """ "sg-…", several with commas. Workers only open connections: none need come in."""
    key_name: str = ""
    """Key pair for those who log in; empty: none."""
    instance_profile: str = ""
    """Name or ARN of the role of the workers; empty: none, what they run gets no rights at AWS."""
    spot_max_price: str = ""
    """Dollars an hour for a pool that takes spot capacity; empty: up to the price on demand."""
    tags: dict[str, str] = field(default_factory=dict)
    """More tags of instances and volumes, as cost-center."""
    environment: dict[str, str] = field(default_factory=dict)
    setup: str = ""
    """Lines of shell before the worker, as root: "python3.11 -m venv /opt/dtf && /opt/dtf/bin/pip install …"."""
    user: str = ""
    """Whom the worker runs as; empty: root."""
    program: str = "dtf"
    """How instances call dtf: "/opt/dtf/bin/dtf"."""
    poll_seconds: float = 10.0
    """Between looks at the instances."""


@dataclass(frozen=True, slots=True)
class SshSettings:
    """Workers on hosts that are reached by ssh (docs/ssh.md)."""

    hosts: dict[str, str] = field(default_factory=dict)
    """Hosts and what they take: "ci@build1:22" = "slots=4"; a host may be a name of ~/.ssh/config."""
    directory: str = ".dtf/launches"
    """Where a host keeps its launches, from the home directory of its user."""
    program: str = "dtf"
    """How hosts call dtf."""
    setup: str = ""
    """Lines of shell before the worker: "PATH=$HOME/venv/bin:$PATH"."""
    working_dir: str = ""
    """Where workers start; empty: the home directory."""
    environment: dict[str, str] = field(default_factory=dict)
    configuration: str = ""
    """Configuration file of ssh (ssh -F); empty: the user's and the system's."""
    options: dict[str, str] = field(default_factory=dict)
    """Options of ssh, beside its configuration: IdentityFile = "~/.ssh/ci"."""
    connect_seconds: float = 10.0
    """A host that is not connected to within so long is down."""
    poll_seconds: float = 2.0
    """Between looks at the hosts."""


@dataclass(frozen=True, slots=True)
class GcpSettings:
    """Workers as instances of Google Compute Engine (docs/gcp.md)."""

    project: str = ""
    zone: str = ""
    """ "europe-west1-b"; several with commas are tried in this order where there is no capacity."""
    endpoint_url: str = ""
    """Of another API than Google's; it is shown no credentials."""
    instance_template: str = ""
    """ "projects/P/global/instanceTemplates/NAME"; what is set below goes over what it says."""
    machine_type: str = ""
    """ "e2-standard-4"."""
    image: str = ""
    """ "projects/P/global/images/family/NAME"; it holds dtf, or gcp.setup installs it."""
    disk_gigabytes: int = 0
    """0: as large as the image."""
    subnet: str = ""
    """ "regions/R/subnetworks/NAME"; empty: the default network, or the template's."""
    has_external_address: bool = False
    """Without one, the subnet needs another way to the coordinator and to what gcp.setup fetches."""
    network_tags: str = ""
    service_account: str = ""
    """Address of that of the workers; empty: none, what they run gets no rights at Google."""
    labels: dict[str, str] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    setup: str = ""
    """Lines of shell before the worker, as root."""
    user: str = ""
    """Whom the worker runs as; empty: root."""
    program: str = "dtf"
    """How instances call dtf: "/opt/dtf/bin/dtf"."""
    poll_seconds: float = 10.0
    """Between looks at the instances."""


@dataclass(frozen=True, slots=True)
class AzureSettings:
    """Workers as virtual machines of Azure (docs/azure.md)."""

    subscription: str = ""
    """Id; empty: AZURE_SUBSCRIPTION_ID."""
    resource_group: str = ""
    """Where the machines are made, and everything that goes with them."""
    location: str = ""
    """ "westeurope"; that of the subnet."""
    zone: str = ""
    """ "1"; several with commas are tried in this order where there is no capacity. Empty: any."""
    endpoint_url: str = ""
    """Of another API than Azure's; it is shown no credentials."""
    vm_size: str = ""
    """ "Standard_D4s_v5"; several with commas are tried in this order where there is no capacity."""
    image: str = ""
    """ "Publisher:Offer:SKU:Version", or the id of an image; it holds dtf, or azure.setup installs it."""
    disk_gigabytes: int = 0
    """0: as large as the image."""
    disk_type: str = ""
    """ "StandardSSD_LRS"; empty: what Azure gives."""
    subnet: str = ""
    """ "/subscriptions/…/virtualNetworks/NAME/subnets/NAME"."""
    has_external_address: bool = False
    """Without one, the subnet needs another way to the coordinator and to what azure.setup fetches."""
    security_group: str = ""
    """Id of a network security group. Workers only open connections: none need come in."""
    identity: str = ""
    """Id of that of the workers, several with commas; empty: none, what they run gets no rights at Azure."""
    spot_max_price: float = 0.0
    """Dollars an hour for a pool that takes spot capacity; 0: up to the price on demand."""
    admin_user: str = "dtf"
    ssh_public_key: str = ""
    """Of those who log in as azure.admin_user; empty: nobody does."""
    tags: dict[str, str] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    setup: str = ""
    """Lines of shell before the worker, as root."""
    user: str = ""
    """Whom the worker runs as; empty: root."""
    program: str = "dtf"
    """How machines call dtf: "/opt/dtf/bin/dtf"."""
    poll_seconds: float = 10.0
    """Between looks at the machines."""
