#!/usr/bin/env python3
"""Holds Kubernetes manifests against the schemas of what they are, and against the `restricted` rules for pods.

    manifests.py CRD FILE…    CRD is the file of KEDA's ScaledObject, or `-` where there is none
"""

import sys

import jsonschema
import kubernetes_validate
import yaml

# The oldest release with native sidecars that do not need a switch, and the newest whose schema is there.
RELEASES = ["1.29", "1.31", "1.33", "1.35"]


def documents(path):
    with open(path, encoding="utf-8") as file:
        return [document for document in yaml.safe_load_all(file) if document]


def against_schema(document, crd):
    if document["apiVersion"].startswith("keda.sh/"):
        if crd:
            jsonschema.validate(document, strict(crd))
        return
    for release in RELEASES:
        kubernetes_validate.validate(document, release, strict=True)


def strict(schema):
    """The schema, with properties refused that it does not name, as the API server warns of."""
    if not isinstance(schema, dict):
        return schema
    schema = {key: strict(value) if isinstance(value, dict) else value for key, value in schema.items()}
    if "properties" in schema and not schema.get("x-kubernetes-preserve-unknown-fields"):
        # Every object has these, and the schema names them only at the top.
        schema.setdefault("additionalProperties", False)
    return schema


def schema_of_scaler(path):
    if path == "-":
        return None
    (crd,) = documents(path)
    (version,) = [version for version in crd["spec"]["versions"] if version["name"] == "v1alpha1"]
    schema = dict(version["schema"]["openAPIV3Schema"])
    schema["properties"] = {**schema["properties"], "metadata": {"type": "object"}}
    return schema


def restricted(pod):
    """What Kubernetes' `restricted` standard for pods wants, and more: a read-only root file system, limits, no API token."""
    faults = []

    def want(holds, what):
        if not holds:
            faults.append(what)

    context = pod.get("securityContext", {})
    want(context.get("runAsNonRoot") and context.get("runAsUser"), "the pod may run as root")
    want(context.get("seccompProfile", {}).get("type") == "RuntimeDefault", "the pod has no seccomp profile")
    want(pod.get("automountServiceAccountToken") is False, "the pod is given a token for the API server")
    want(not any("hostPath" in volume for volume in pod.get("volumes", [])), "a volume is of the node")
    volumes = {volume["name"] for volume in pod.get("volumes", [])}
    for container in pod.get("initContainers", []) + pod["containers"]:
        name, context = container["name"], container.get("securityContext", {})
        want(context.get("allowPrivilegeEscalation") is False, f"`{name}` may gain privileges")
        want(context.get("capabilities", {}).get("drop") == ["ALL"], f"`{name}` has capabilities")
        want(context.get("readOnlyRootFilesystem"), f"`{name}` can write its root file system")
        want("memory" in container.get("resources", {}).get("limits", {}), f"`{name}` has no limit of memory")
        mounts = {mount["name"] for mount in container.get("volumeMounts", [])}
        want(mounts <= volumes, f"`{name}` mounts what is no volume: {mounts - volumes}")
    return faults


def runner(pod):
    """What a runner needs: probes of its routes, the drain before the end, and the time for it."""
    (container,) = [c for c in pod.get("initContainers", []) + pod["containers"] if c["name"] == "sandhog"]
    ports = {port["name"] for port in container["ports"]}
    faults = []
    for probe in ["startupProbe", "readinessProbe", "livenessProbe"]:
        asked = container[probe]["httpGet"]
        if asked["path"] not in ["/healthz", "/readyz"] or asked["port"] not in ports:
            faults.append(f"`{probe}` asks for what no runner has")
    if container["readinessProbe"]["httpGet"]["path"] != "/readyz" or container["livenessProbe"]["httpGet"]["path"] != "/healthz":
        faults.append("the probes are mixed up")
    if "drain" not in container["lifecycle"]["preStop"]["exec"]["command"]:
        faults.append("it is not drained")
    if pod["terminationGracePeriodSeconds"] <= 45:
        faults.append("it has no time to drain")
    return faults


def main():
    crd, *paths = sys.argv[1:]
    crd, failed = schema_of_scaler(crd), False
    for path in paths:
        for document in documents(path):
            name = f"{path}: {document['kind']} `{document['metadata']['name']}`"
            try:
                against_schema(document, crd)
                faults = []
            except (kubernetes_validate.ValidationError, jsonschema.ValidationError) as error:
                faults = [f"{'.'.join(map(str, error.path))}: {error.message}"]
            if document["kind"] == "Deployment":
                pod = document["spec"]["template"]["spec"]
                faults += restricted(pod) + runner(pod)
            for fault in faults:
                print(f"{name}: {fault}", file=sys.stderr)
            failed |= bool(faults)
    sys.exit(failed)


main()
