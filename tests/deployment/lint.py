"""The linters, in their strictest setting: .hadolint.yaml and .yamllint say which rules hold, and why."""

from judge import Mistake, check

# They take most of the time, so that they are not judged again for each mistake elsewhere.
MANY = {"helm", "k8s", "tests"}


@check(
    Mistake("Dockerfile", "COPY askama.toml ./", "ADD askama.toml ./", "DL3020"),
    Mistake("Dockerfile", "cc-debian12:nonroot", "cc-debian12", "DL3006"),
    Mistake("Dockerfile", 'CMD ["serve"]', "CMD serve", "DL3025"),
    Mistake("Dockerfile", 'image.licenses="MIT', 'image.license="MIT', "DL3050"),
)
def dockerfile(tree):
    """hadolint, hints too."""
    yield from told(tree.run("hadolint", "--no-color", "Dockerfile"))


@check(
    Mistake("regions.yaml", "domain:", "domain: a\ndomain:", "duplication of key"),
    Mistake("regions.yaml", "default: true", "default: yes", "truthy"),
    Mistake("compose.yaml", "  security_opt: [", "   security_opt: [", "compose.yaml"),
    Mistake("regions.yaml", "share: 30", "share: 030", "octal"),
    Mistake("regions.yaml", "share: 30", "share:", "empty value"),
)
def few_yaml(tree):
    """yamllint, of the files at the top and those that are few."""
    yield from yamllint(tree, lambda top: top not in MANY)


@check(Mistake("k8s/values.yaml", "\n", "\n\n\n\n\n", "empty-lines"))
def many_yaml(tree):
    """yamllint, of the chart, the manifests and their tests; the chart's templates are YAML only once rendered."""
    yield from yamllint(tree, lambda top: top in MANY)


def yamllint(tree, wanted):
    paths = [file.relative_to(tree.root) for end in ("yaml", "yml", "yamllint") for file in tree.files(f"**/*.{end}")]
    names = [str(path) for path in paths if wanted(path.parts[0]) and "templates" not in path.parts]
    yield from told(tree.run("yamllint", "--strict", "--format", "parsable", *names))


def told(done):
    """What a linter says, a line each; that it failed, if it says nothing of it."""
    lines = (done.stdout + done.stderr).splitlines()
    yield from lines
    if done.returncode != 0 and not lines:
        yield f"{done.args[0]}: exit code {done.returncode}"
