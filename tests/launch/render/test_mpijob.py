"""MPIJobs, checked against the published schemas of Kubernetes' pods and against what the MPI operator admits.

The operator's own definition is not a Python package, so its fields are written here, from kubeflow/mpi-operator v0.8.0
(commit 101db14): names and types as in manifests/base/kubeflow.org_mpijobs.yaml, values as the operator checks them in
pkg/apis/kubeflow/validation/validation.go. Operators from v0.5.0 on know every field that we write; v0.4.0 has no
launcherCreationPolicy.
"""

from __future__ import annotations

from dataclasses import replace

import jsonschema
import kubernetes_validate
import pytest
import yaml

from kogpt2_launch.plan.variables import Fabric
from kogpt2_launch.render import render
from tests.launch.render.render_helpers import G5, P3DN, P4D, SITE, changed, planned

KUBERNETES = ("1.25", "1.31", "1.37")  # the oldest that the package knows, to the newest


def fields(required=(), **properties):
    return {"type": "object", "properties": properties, "required": list(required), "additionalProperties": False}


def one_of(*values):
    return {"enum": list(values)}


def count(least=0, most=2**31 - 1):
    return {"type": "integer", "minimum": least, "maximum": most}


TEXT, FLAG, POD = {"type": "string", "minLength": 1}, {"type": "boolean"}, {"type": "object"}


def replicas(least, most):
    return fields(
        required=["replicas", "restartPolicy", "template"],
        replicas=count(least, most),
        restartPolicy=one_of("Never", "OnFailure"),
        template=POD,
    )


MPIJOB = fields(
    required=["apiVersion", "kind", "metadata", "spec"],
    apiVersion=one_of("kubeflow.org/v2beta1"),
    kind=one_of("MPIJob"),
    # Its pods are called NAME-worker-N, and each is a host's name: letters first, 63 in all.
    metadata=fields(["name"], name={"type": "string", "pattern": r"^[a-z]([-a-z0-9]{0,48}[a-z0-9])?$"}),
    spec=fields(
        required=["mpiReplicaSpecs"],
        slotsPerWorker=count(),
        runLauncherAsWorker=FLAG,
        mpiImplementation=one_of("OpenMPI", "Intel", "MPICH"),
        sshAuthMountPath=TEXT,
        launcherCreationPolicy=one_of("AtStartup", "WaitForWorkersReady"),
        runPolicy=fields(
            cleanPodPolicy=one_of("None", "Running", "All"),
            ttlSecondsAfterFinished=count(),
            activeDeadlineSeconds=count(most=2**63 - 1),
            backoffLimit=count(),
            suspend=FLAG,
        ),
        mpiReplicaSpecs=fields(required=["Launcher"], Launcher=replicas(1, 1), Worker=replicas(1, 2**31 - 1)),
    ),
)


def refusals(job):
    """The fields that the operator, then each Kubernetes, would refuse: a line for each, with its path."""
    found = [
        f"{error.json_path}: {error.message}" for error in jsonschema.Draft202012Validator(MPIJOB).iter_errors(job)
    ]
    for name, replica in [] if found else job["spec"]["mpiReplicaSpecs"].items():
        template = {"apiVersion": "v1", "kind": "PodTemplate", "template": replica["template"]}
        for version in KUBERNETES:
            try:
                kubernetes_validate.validate(template, version, strict=True)
            except kubernetes_validate.ValidationError as error:
                found.append(f"{name}, Kubernetes {version}: {'.'.join(map(str, error.path))}: {error.message}")
        for container in replica["template"]["spec"]["containers"]:
            found += resource_refusals(container.get("resources", {}))
    return found


def resource_refusals(resources):
    """Rules on quantities that are in no schema: Kubernetes, pkg/apis/core/validation/validation.go."""
    limits, requests = resources.get("limits", {}), resources.get("requests", {})
    asked = {*limits, *requests}
    if any(name.startswith("hugepages-") for name in asked) and not asked & {"cpu", "memory"}:
        yield "HugePages require cpu or memory"
    for name in asked - {"cpu", "memory", "ephemeral-storage"}:
        if name not in limits or requests.get(name, limits[name]) != limits[name]:
            yield f"{name}: limit and request must be the same"


def rendered(**plan):
    return yaml.safe_load(render(planned(**plan), "mpijob", SITE)["mpijob.yaml"])


@pytest.mark.parametrize(
    "plan",
    [
        {"fabric": P4D},
        {"fabric": P3DN, "hosts": ",".join(f"h{number}:8" for number in range(8))},
        {"fabric": G5, "hosts": "h1:1"},
        {"fabric": Fabric(), "hosts": "h1:4,h2:4"},
        {"overrides": ["tracking.run_dir=runs/a b;$(c)'\""]},
    ],
    ids=["p4d", "p3dn", "g5", "CPUs", "awkward"],
)
def test_operator_and_kubernetes_take_the_job(plan):
    assert refusals(rendered(**plan)) == []


@pytest.mark.parametrize("stem", ["한국어", "2_layers", "a" * 39 + "_b", "Base.v2", "_", "x" * 200])
def test_name_is_one_for_pods(stem):
    for plan in (replace(planned(), recipe=f"recipes/{stem}.yaml"), planned(overrides=[f"name={stem}"])):
        assert refusals(yaml.safe_load(render(plan, "mpijob", SITE)["mpijob.yaml"])) == []


WORKER = "spec.mpiReplicaSpecs.Worker"
CONTAINER = f"{WORKER}.template.spec.containers.0"


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        ("spec.slotPerWorker", 8, "'slotPerWorker' was unexpected"),
        ("spec.slotsPerWorker", "8", "is not of type 'integer'"),
        ("spec.mpiImplementation", "OpenMpi", "is not one of"),
        ("spec.launcherCreationPolicy", "WaitForWorkers", "is not one of"),
        ("spec.runPolicy.cleanPodPolicy", "running", "is not one of"),
        ("spec.runPolicy.backOffLimit", 3, "'backOffLimit' was unexpected"),
        ("spec.mpiReplicaSpecs.Workers", {}, "'Workers' was unexpected"),
        ("spec.mpiReplicaSpecs.Launcher.replicas", 2, "greater than the maximum of 1"),
        (f"{WORKER}.restartPolicy", "ExitCode", "is not one of"),
        ("metadata.name", "a" * 40 + "-", "does not match"),
        (f"{WORKER}.template.spec.gracePeriodSeconds", 180, "Kubernetes 1.37: template.spec: Additional properties"),
        (f"{WORKER}.template.spec.terminationGracePeriodSeconds", "180", "is not of type 'integer'"),
        (f"{WORKER}.template.spec.volumes.1.emptyDir.medum", "Memory", "'medum' was unexpected"),
        (f"{CONTAINER}.command", "/usr/sbin/sshd -De", "is not of type 'array'"),
        (f"{CONTAINER}.workDir", "/fsx", "'workDir' was unexpected"),
        (f"{CONTAINER}.securityContext.capabilities.add", "IPC_LOCK", "is not of type 'array'"),
        (f"{CONTAINER}.resources.request", {}, "'request' was unexpected"),
        (f"{CONTAINER}.resources.requests", {}, "HugePages require cpu or memory"),
        (f"{CONTAINER}.resources.limits", {"nvidia.com/gpu": 8}, "hugepages-2Mi: limit and request must be the same"),
    ],
)
def test_a_wrong_field_is_refused(path, value, told):
    found = refusals(changed(rendered(), path, value))
    assert any(told in line for line in found), found
