# syntax=docker/dockerfile:1
#
# The image: one program on glibc, no shell, no package tools, nobody's root.
#
#   docker buildx build --build-arg REVISION="$(git rev-parse HEAD)" --sbom=true --provenance=mode=max --tag godwit .
#
# Several architectures, each built on a machine of its own (an emulated one would take hours over the link-time
# optimisation, and crossing takes a C toolchain for each, which ring and mimalloc are compiled with):
#
#   docker buildx create --name both --platform linux/amd64 ssh://BUILDER-AMD64
#   docker buildx create --name both --append --platform linux/arm64 ssh://BUILDER-ARM64
#   docker buildx build --builder both --platform linux/amd64,linux/arm64 --build-arg REVISION="$(git rev-parse HEAD)" \
#       --cache-to type=registry,ref=REPOSITORY:cache,mode=max --cache-from type=registry,ref=REPOSITORY:cache \
#       --sbom=true --provenance=mode=max --tag REPOSITORY:VERSION --push .
#
# No database is needed: the checked SQL is in .sqlx/. tests/image does the build stage's work by hand and looks at what comes of
# it. The base images are pinned by tag; pin them by digest where yours are mirrored:
#
#   docker buildx imagetools inspect --format '{{.Manifest.Digest}}' IMAGE

FROM rust:1.95.0-slim-bookworm AS build
WORKDIR /build

# What we depend on, compiled in a layer of its own: it is made anew only when these files change, and unlike a cache mount it goes
# with `--cache-to` to builders that have never seen it. In place of each target's source stands an empty program.
COPY Cargo.toml Cargo.lock build.rs ./
COPY .cargo .cargo
RUN mkdir src && touch src/lib.rs \
    && sed -n 's/^path = "\(.*\)"$/\1/p' Cargo.toml >targets \
    && while read -r target; do mkdir -p "$(dirname "$target")" && echo 'fn main() {}' >"$target"; done <targets \
    && cargo build --locked --profile dist --features platforms --bin godwit \
    && rm -r targets src

COPY askama.toml ./
COPY .sqlx .sqlx
COPY migrations migrations
COPY src src
# Cargo goes by times, and a checkout may be older than the layer above.
RUN touch build.rs src/lib.rs src/main.rs \
    && cargo build --locked --profile dist --features platforms --bin godwit \
    && strip --strip-all target/dist/godwit

# Debian's glibc and libgcc_s, which the program links to (tests/image has the list), certificate authorities, without which it does
# not start, and hardly more.
FROM gcr.io/distroless/cc-debian12:nonroot
ARG REVISION
LABEL org.opencontainers.image.title="godwit" \
    org.opencontainers.image.description="An application backend that lives in several regions at once" \
    org.opencontainers.image.licenses="MIT OR Apache-2.0" \
    org.opencontainers.image.version="0.1.0" \
    org.opencontainers.image.revision="$REVISION"
COPY --from=build --chmod=0555 /build/target/dist/godwit /usr/local/bin/godwit

# By number, which is all that `runAsNonRoot` can judge.
USER 65532:65532
# Public, internal, ops. They listen on loopback until `server.*_addr` says otherwise.
EXPOSE 8081 9081 9181
ENTRYPOINT ["/usr/local/bin/godwit"]
# For Docker: Kubernetes asks the probes itself. Settings come from the environment here; where they are in a file, say `--config` too.
HEALTHCHECK --interval=10s --timeout=6s --start-period=30s --retries=3 CMD ["/usr/local/bin/godwit", "health", "--probe", "liveness"]
CMD ["serve"]
