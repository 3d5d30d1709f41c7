"""Networks that use their parameter arrays in dense layers and in other ways."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np


class Perceptron(nn.Module):
    """A multilayer perceptron with biases."""

    widths: tuple = (7, 6)
    outputs: int = 1

    @nn.compact
    def __call__(self, x):
        for width in self.widths:
            x = nn.tanh(nn.Dense(width)(x))
        f = nn.Dense(self.outputs)(x)
        return f[:, 0] if self.outputs == 1 else f


class Residual(nn.Module):
    """A network with a skip connection around a rematerialized layer, normalization layers, and inputs used twice."""

    @nn.compact
    def __call__(self, x):
        h = nn.Dense(6)(x)
        h = h + nn.remat(nn.Dense)(6)(nn.tanh(nn.LayerNorm()(h)))
        h = nn.BatchNorm(use_running_average=True)(h)
        return nn.Dense(2)(jnp.concatenate([h, x], axis=1))


class Convolutional(nn.Module):
    """A network with a convolution, a mean over positions and a dense layer."""

    @nn.compact
    def __call__(self, x):
        x = jnp.tanh(nn.Conv(3, (3, 3), strides=2)(x))
        return nn.Dense(2)(x.mean(axis=(1, 2)))


class Tokens(nn.Module):
    """A network with attention between the positions of each row, followed by a dense layer."""

    @nn.compact
    def __call__(self, x):
        h = nn.MultiHeadDotProductAttention(num_heads=1, use_bias=False, name="a")(x.reshape(len(x), 3, 2))
        return nn.DenseGeneral((1, 2))(h.reshape(len(x), 6))[:, 0]


class LowRank(nn.Module):
    """A network whose weights are the sum of a fixed matrix and a trained rank-one matrix, in different collections."""

    @nn.compact
    def __call__(self, x):
        frozen = self.variable("fixed", "kernel", nn.initializers.normal(1.0), jax.random.key(5), (6, 4)).value
        count = self.variable("fixed", "count", lambda: jnp.int32(3)).value
        a = self.param("a", nn.initializers.normal(1.0), (6, 1))
        b = self.param("b", nn.initializers.normal(1.0), (1, 4))
        return jnp.tanh(x @ (frozen.astype(x.dtype) + a @ b)) / count.astype(x.dtype)


@jax.custom_vjp
def doubled(w, x):
    """Return x @ w, with a custom gradient with respect to w that is twice the true one."""
    return x @ w


doubled.defvjp(lambda w, x: (x @ w, (w, x)), lambda kept, g: (2 * kept[1].T @ g, g @ kept[0].T))


@jax.jit
def layer(w, x):
    """Return tanh(x @ w) from a jitted function, so that all calls share one trace."""
    return jnp.tanh(x @ w)


def looped(p, x):
    return jax.lax.scan(lambda h, wb: (jnp.tanh(h @ wb[0] + wb[1][None]), None), x, (p["w"], p["b"]))[0]


def branched(p, x):
    return jax.lax.cond(jnp.isfinite(x).all(), lambda w: jnp.sin(x @ w), lambda w: x @ w, p["w"]) @ p["v"]


def with_scalars(p, x):
    kernel = 3 * p["w"] * p["s"] / jnp.sqrt(jnp.asarray(6, x.dtype))
    return jnp.tanh(x @ kernel - 0.5 * p["b"][None]) * p["t"] / p["u"]


def fourier(p, x):
    spectrum = jnp.fft.fft((x @ p["w"]).astype(complex)) * p["v"].astype(complex)[None]
    return jnp.abs(spectrum).astype(x.dtype)


def narrow(p, x):
    return (x.astype("float32") @ p["w"].astype("float32")).astype(x.dtype) + p["b"][None]


def normed(p, x):
    return jnp.tanh(x @ (p["w"] / jnp.linalg.norm(p["w"], axis=0, keepdims=True)) * p["g"][None])


# For each function: its arrays and their shapes, (6, 6) by default; the function, from (n, 6) to (n, 6); and the arrays
# that are recognized as dense layers.
FUNCTIONS = {
    "tied": ("w", lambda p, x: layer(p["w"], layer(p["w"], x)), ""),
    "tied transposed": ("w v", lambda p, x: jnp.tanh(x @ p["w"] @ p["v"]) @ p["w"].T, "v"),
    "transposed": ("w v", lambda p, x: jnp.tanh(p["w"] @ x.T).T @ p["v"].T[::-1], "w v"),
    "squared": ("w", lambda p, x: x @ p["w"] ** 2, ""),
    "by itself": ("w", lambda p, x: x @ (p["w"] * p["w"]) + x @ (p["w"] + p["w"]), ""),
    "twice at once": ("w", lambda p, x: jnp.tanh(x) @ (p["w"] @ p["w"]), ""),
    "product": ("w v", lambda p, x: jnp.tanh(x @ (p["w"] @ p["v"])), ""),
    "sum": ("w v", lambda p, x: jnp.tanh(x @ (p["w"] + p["v"].T)), "w v"),
    "elementwise": ("w b:6", lambda p, x: jnp.tanh(x * p["b"][None]) @ p["w"], "w"),
    "bias twice": ("w v b:6", lambda p, x: jnp.tanh(x @ p["w"] + p["b"][None]) @ p["v"] + p["b"][None], "w v"),
    "bias and skip": ("w b:6", lambda p, x: (h := x @ p["w"]) + jnp.sin(h + p["b"][None]), "w b"),
    "bias of all units": ("w b:1", lambda p, x: jnp.tanh(x @ p["w"] + p["b"][None]), "w"),
    "minus inputs": ("w b:6", lambda p, x: jnp.sin(p["b"][None] - x) @ p["w"], "w b"),
    "scalars": ("w s: t: u: b:6", with_scalars, "w b"),
    "divisor": ("w", lambda p, x: x @ (2 / p["w"]), ""),
    "blocks": ("w:2,3,3", lambda p, x: jnp.einsum("nij,ijk->nik", x.reshape(-1, 2, 3), p["w"]).reshape(-1, 6), ""),
    "normed": ("w g:6", normed, ""),
    "looped": ("w:4,6,6 b:4,6", looped, ""),
    "branched": ("w v", branched, "v"),
    "own gradient": ("w v", lambda p, x: jnp.sin(doubled(p["w"], x)) @ p["v"], "v"),
    "stopped": ("w v", lambda p, x: jnp.tanh(x @ jax.lax.stop_gradient(p["w"])) @ p["v"], "v"),
    "by rows": ("w v", lambda p, x: jax.vmap(lambda r: jnp.tanh(p["v"] @ (r @ p["w"])))(x), "w v"),
    "two axes": (
        "w:2,3,2,3",
        lambda p, x: jnp.einsum("nij,ijkl->nlk", x.reshape(-1, 2, 3), p["w"]).reshape(-1, 6),
        "w",
    ),
    "places": ("w v", lambda p, x: jnp.sin(x.reshape(-1, 2, 3) @ p["w"][:3]).sum(axis=1) @ p["v"], "v"),
    "constant": ("w b:1,6", lambda p, x: (x @ p["w"]) * 0 + p["b"], "w b"),
    "picked": ("w v", lambda p, x: x @ p["w"] + p["v"][jnp.argmax(x, axis=1)], "w"),
    "fourier": ("w v:6", fourier, "w"),
    "narrow": ("w b:6", narrow, "w b"),
    "unused": ("w v", lambda p, x: x @ p["w"], "w"),
    "empty": ("w v:6,0", lambda p, x: jnp.concatenate([x @ p["v"], x @ p["w"]], axis=1), "w v"),
}

# For each module: the network, the shape of an input, and the arrays that are not recognized as dense layers.
MODULES = {
    "perceptron": (Perceptron(outputs=3), (5,), ""),
    "residual": (Residual(), (5,), "LayerNorm_0/scale BatchNorm_0/scale"),
    "convolutional": (Convolutional(), (5, 5, 2), "Conv_0/kernel Conv_0/bias"),
    "attention": (Tokens(), (6,), "a/key/kernel a/out/kernel a/query/kernel a/value/kernel"),
    "low rank": (LowRank(), (6,), "a b"),
}


def arrays_of(shapes):
    """Return random float64 arrays by name, given their shapes in a string such as "w b:6"."""
    rng = np.random.default_rng(0)
    named = (spec.partition(":") for spec in shapes.split())
    sizes = {name: [int(n) for n in size.split(",") if n] if colon else (6, 6) for name, colon, size in named}
    return {name: rng.normal(size=size) for name, size in sizes.items()}


def together(variables, x):
    """Return the sum of all test functions; each array's part of the kernel depends only on that array's function."""
    return sum(function(variables["params"][name], x) for name, (_, function, _) in FUNCTIONS.items())
