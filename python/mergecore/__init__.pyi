"""The public face of mergecore. Written by `make stubs`: do not edit."""

from collections.abc import Mapping, Sequence
from typing import Literal, TypeAlias, TypeVar

from mergecore._mergecore import __version__ as __version__
from mergecore.arrays import random_mask as random_mask
from mergecore.diagnose.geometry import Geometry as Geometry
from mergecore.diagnose.geometry import compare as compare
from mergecore.diagnose.mergeability import Mergeability as Mergeability
from mergecore.diagnose.mergeability import mergeability as mergeability
from mergecore.errors import MergecoreError as MergecoreError
from mergecore.errors import ModelError as ModelError
from mergecore.errors import ModelNotFoundError as ModelNotFoundError
from mergecore.errors import OutputExistsError as OutputExistsError
from mergecore.errors import RecipeError as RecipeError
from mergecore.errors import RunError as RunError
from mergecore.errors import SpaceError as SpaceError
from mergecore.many import merge_many as merge_many
from mergecore.merging import MergeReport as MergeReport
from mergecore.merging import extrapolate as extrapolate
from mergecore.merging import merge as merge
from mergecore.merging import run as run
from mergecore.merging import verify as verify
from mergecore.registry import Method as Method
from mergecore.registry import Modifier as Modifier
from mergecore.registry import Parameter as Parameter
from mergecore.registry import methods as methods
from mergecore.registry import modifiers as modifiers
from mergecore.streaming import Stream as Stream
from mergecore.streaming import load as load
from mergecore.streaming import stream as stream

__all__ = [
    "Geometry",
    "MergeReport",
    "Mergeability",
    "MergecoreError",
    "Method",
    "ModelError",
    "ModelNotFoundError",
    "Modifier",
    "OutputExistsError",
    "Parameter",
    "RecipeError",
    "RunError",
    "SpaceError",
    "Stream",
    "__version__",
    "arcee_fusion",
    "breadcrumbs",
    "breadcrumbs_ties",
    "compare",
    "dare_linear",
    "dare_ties",
    "della",
    "della_linear",
    "extrapolate",
    "iso_c",
    "iso_cts",
    "karcher",
    "linear",
    "load",
    "merge",
    "merge_many",
    "mergeability",
    "methods",
    "model_stock",
    "modifiers",
    "multislerp",
    "nearswap",
    "nuslerp",
    "passthrough",
    "ram",
    "ramplus_tl",
    "random_mask",
    "run",
    "sce",
    "slerp",
    "stream",
    "task_arithmetic",
    "ties",
    "tsv",
    "verify",
]

_HOMES: dict[str, str]
_Tensors = TypeVar("_Tensors")  # an array, a tensor, or a dict of them
_Modifiers: TypeAlias = str | Mapping[str, object] | Sequence[str | Mapping[str, object]]

def linear(
    models: Sequence[_Tensors],
    base: _Tensors | None = None,
    *,
    weights: float | Sequence[float] | None = None,
    normalize: bool = True,
    dtype: object = None,
    name: str = "",
    seed: int = 42,
) -> _Tensors:
    r"""Weighted average of the models.

    θ = Σ wᵢθᵢ / Σ wᵢ   (without the divisor if normalize is false)

    Source: Wortsman et al., Model soups, ICML 2022, arXiv:2203.05482.

    Args:
        models: NumPy arrays, CPU torch tensors (bfloat16 included), or dicts of either; all alike.
        base: One more input, the last, if given.
        weights: How much of each model goes in; 1/N each if left out, which makes the merge a mean.
            One value, or one a model.
        normalize: Divide by the sum of the weights.
        dtype: The output's dtype; else that of the base, else of the first model.
        name: The name of a bare array, of which random masks are made.
        seed: The seed of random masks.

    Returns:
        The merge: an array of the inputs' kind and shape, or a dict of them.

    Raises:
        RecipeError: A parameter is unknown or out of its range.
        ModelError: Names, shapes or dtypes do not fit together.
    """

def slerp(
    models: Sequence[_Tensors],
    base: _Tensors | None = None,
    *,
    t: float = 0.5,
    dtype: object = None,
    name: str = "",
    seed: int = 42,
) -> _Tensors:
    r"""Spherical interpolation between two models.

    θ = [sin((1−t)Ω) a + sin(tΩ) b] / sin Ω,  cos Ω = ⟨a, b⟩ / ‖a‖‖b‖;  (1−t) a + t b where |cos Ω|
    > 0.9995

    Source: Shoemake, Animating rotation with quaternion curves, SIGGRAPH 1985.

    Args:
        models: NumPy arrays, CPU torch tensors (bfloat16 included), or dicts of either; all alike.
        base: The first of the inputs, if given.
        t: How far from the first model (0) to the second (1).
        dtype: The output's dtype; else that of the base, else of the first model.
        name: The name of a bare array, of which random masks are made.
        seed: The seed of random masks.

    Returns:
        The merge: an array of the inputs' kind and shape, or a dict of them.

    Raises:
        RecipeError: A parameter is unknown or out of its range.
        ModelError: Names, shapes or dtypes do not fit together.
    """

def nuslerp(
    models: Sequence[_Tensors],
    base: _Tensors | None = None,
    *,
    weights: float | Sequence[float] | None = None,
    nuslerp_flatten: bool = True,
    nuslerp_row_wise: bool = False,
    modifiers: _Modifiers | None = None,
    dtype: object = None,
    name: str = "",
    seed: int = 42,
) -> _Tensors:
    r"""Spherical interpolation between two task vectors, or two models, by their weights.

    Δ = [sin((1−t)Ω) δ₁ + sin(tΩ) δ₂] / sin Ω,  cos Ω = ⟨δ₁, δ₂⟩ / ‖δ₁‖‖δ₂‖,  t = w₂/(w₁+w₂);  (1−t)
    δ₁ + t δ₂ where cos Ω = ±1

    Source: Mergekit 0.1.5; Shoemake, Animating rotation with quaternion curves, SIGGRAPH 1985.

    Args:
        models: NumPy arrays, CPU torch tensors (bfloat16 included), or dicts of either; all alike.
        base: If given, changes from it are merged, and added to it; else the models are.
        weights: How much of each model goes in, relative to the other. One value, or one a model.
        nuslerp_flatten: Take a tensor as one vector, rather than each vector along an axis by
            itself.
        nuslerp_row_wise: Without nuslerp_flatten: vectors along the first axis, rather than the
            last.
        modifiers: What acts on the merged change, in order: names, or mappings of one name to its
            parameters; or one of them. Only with a base.
        dtype: The output's dtype; else that of the base, else of the first model.
        name: The name of a bare array, of which random masks are made.
        seed: The seed of random masks.

    Returns:
        The merge: an array of the inputs' kind and shape, or a dict of them.

    Raises:
        RecipeError: A parameter is unknown or out of its range.
        ModelError: Names, shapes or dtypes do not fit together.
    """

def multislerp(
    models: Sequence[_Tensors],
    base: _Tensors | None = None,
    *,
    weights: float | Sequence[float] | None = None,
    normalize_weights: bool = True,
    eps: float = 1e-08,
    modifiers: _Modifiers | None = None,
    dtype: object = None,
    name: str = "",
    seed: int = 42,
) -> _Tensors:
    r"""The mean direction of task vectors, or models, at the mean of their lengths.

    Δ = Σ wᵢ‖δᵢ‖ · m/‖m‖,  m = Σ wᵢδᵢ / (‖δᵢ‖ + eps);  Σ wᵢδᵢ where ‖m‖ < eps, or is lost in
    rounding

    Source: Goddard, mergekit (multislerp), arcee.ai 2025.

    Args:
        models: NumPy arrays, CPU torch tensors (bfloat16 included), or dicts of either; all alike.
        base: If given, changes from it are merged, and added to it; else the models are.
        weights: How much of each model goes in; 1/N each if left out, which makes the merge a mean.
            One value, or one a model.
        normalize_weights: Divide the weights by their sum.
        eps: Is added to each length before it divides; a mean direction shorter than this is none.
        modifiers: What acts on the merged change, in order: names, or mappings of one name to its
            parameters; or one of them. Only with a base.
        dtype: The output's dtype; else that of the base, else of the first model.
        name: The name of a bare array, of which random masks are made.
        seed: The seed of random masks.

    Returns:
        The merge: an array of the inputs' kind and shape, or a dict of them.

    Raises:
        RecipeError: A parameter is unknown or out of its range.
        ModelError: Names, shapes or dtypes do not fit together.
    """

def karcher(
    models: Sequence[_Tensors],
    base: _Tensors | None = None,
    *,
    max_iter: int = 10,
    tol: float = 1e-05,
    dtype: object = None,
    name: str = "",
    seed: int = 42,
) -> _Tensors:
    r"""The mean of the models on the sphere of their directions, at the mean of their lengths.

    θ = (Σ ‖θᵢ‖ / N) · argmin_μ Σ arccos²⟨μ, θᵢ/‖θᵢ‖⟩,  ‖μ‖ = 1

    Source: Karcher, Riemannian center of mass and mollifier smoothing, Commun. Pure Appl. Math. 30,
    1977.

    Args:
        models: NumPy arrays, CPU torch tensors (bfloat16 included), or dicts of either; all alike.
        base: One more input, the last, if given.
        max_iter: How many steps are taken at most.
        tol: A step (and a tensor's length) below this is nothing.
        dtype: The output's dtype; else that of the base, else of the first model.
        name: The name of a bare array, of which random masks are made.
        seed: The seed of random masks.

    Returns:
        The merge: an array of the inputs' kind and shape, or a dict of them.

    Raises:
        RecipeError: A parameter is unknown or out of its range.
        ModelError: Names, shapes or dtypes do not fit together.
    """

def task_arithmetic(
    models: Sequence[_Tensors],
    base: _Tensors,
    *,
    onto: _Tensors | None = None,
    weights: float | Sequence[float] | None = None,
    lambda_: float = 1.0,
    normalize: bool = False,
    modifiers: _Modifiers | None = None,
    dtype: object = None,
    name: str = "",
    seed: int = 42,
) -> _Tensors:
    r"""Weighted sum of the task vectors.

    θ = θ₀ + λ Σ wᵢδᵢ,  δᵢ = θᵢ − θ₀   (over Σ wᵢ if normalize)

    Source: Ilharco et al., Editing models with task arithmetic, ICLR 2023, arXiv:2212.04089.

    Args:
        models: NumPy arrays, CPU torch tensors (bfloat16 included), or dicts of either; all alike.
        base: What the models were fine-tuned from.
        onto: What the merged change is added to; the base if None.
        weights: How much of each model goes in; 1/N each if left out, which makes the merge a mean.
            One value, or one a model.
        lambda_: Scales the merged task vector before it is added.
        normalize: Divide by the sum of the weights.
        modifiers: What acts on the merged change, in order: names, or mappings of one name to its
            parameters; or one of them.
        dtype: The output's dtype; else that of the base, else of the first model.
        name: The name of a bare array, of which random masks are made.
        seed: The seed of random masks.

    Returns:
        The merge: an array of the inputs' kind and shape, or a dict of them.

    Raises:
        RecipeError: A parameter is unknown or out of its range.
        ModelError: Names, shapes or dtypes do not fit together.
    """

def ties(
    models: Sequence[_Tensors],
    base: _Tensors,
    *,
    onto: _Tensors | None = None,
    weights: float | Sequence[float] | None = None,
    density: float | Sequence[float] = 0.2,
    lambda_: float = 1.0,
    normalize: bool = True,
    rescale: Literal["inverse", "l1", "none"] | bool = "none",
    scope: Literal["tensor", "model"] = "tensor",
    modifiers: _Modifiers | None = None,
    dtype: object = None,
    name: str = "",
    seed: int = 42,
) -> _Tensors:
    r"""Trim, elect signs, and merge the task vectors' elements that agree.

    θ = θ₀ + λ Σ_{i agrees} wᵢδ̂ᵢ / Σ_{i agrees} wᵢ,  δ̂ᵢ = the density·n largest of δᵢ;  agrees:
    sign(δ̂ᵢ) = sign(Σ wⱼδ̂ⱼ)

    Source: Yadav et al., TIES-Merging, NeurIPS 2023, arXiv:2306.01708.

    Args:
        models: NumPy arrays, CPU torch tensors (bfloat16 included), or dicts of either; all alike.
        base: What the models were fine-tuned from.
        onto: What the merged change is added to; the base if None.
        weights: How much of each model goes in; 1/N each if left out, which makes the merge a mean.
            One value, or one a model.
        density: Fraction of each task vector that is kept. One value, or one a model.
        lambda_: Scales the merged task vector before it is added.
        normalize: Divide by the weights that agree (a mean rather than a sum).
        rescale: What makes up for the dropped elements: inverse divides by the density (the
            paper's), l1 restores the sum of magnitudes (mergekit's; true means this), none (or
            false) does nothing.
        scope: What a threshold is taken over: each tensor, or the whole model (the paper's).
        modifiers: What acts on the merged change, in order: names, or mappings of one name to its
            parameters; or one of them.
        dtype: The output's dtype; else that of the base, else of the first model.
        name: The name of a bare array, of which random masks are made.
        seed: The seed of random masks.

    Returns:
        The merge: an array of the inputs' kind and shape, or a dict of them.

    Raises:
        RecipeError: A parameter is unknown or out of its range.
        ModelError: Names, shapes or dtypes do not fit together.
    """

def dare_linear(
    models: Sequence[_Tensors],
    base: _Tensors,
    *,
    onto: _Tensors | None = None,
    weights: float | Sequence[float] | None = None,
    density: float | Sequence[float] = 0.5,
    lambda_: float = 1.0,
    normalize: bool = False,
    rescale: Literal["inverse", "l1", "none"] | bool = "inverse",
    modifiers: _Modifiers | None = None,
    dtype: object = None,
    name: str = "",
    seed: int = 42,
) -> _Tensors:
    r"""Drop at random, rescale, and sum the task vectors.

    θ = θ₀ + λ Σ wᵢδ̂ᵢ,  δ̂ᵢ = mᵢ∘δᵢ / density,  mᵢ ~ Bernoulli(density)   (over Σ wᵢ if normalize)

    Source: Yu et al., Language models are Super Mario (DARE), ICML 2024, arXiv:2311.03099.

    Args:
        models: NumPy arrays, CPU torch tensors (bfloat16 included), or dicts of either; all alike.
        base: What the models were fine-tuned from.
        onto: What the merged change is added to; the base if None.
        weights: How much of each model goes in; 1/N each if left out, which makes the merge a mean.
            One value, or one a model.
        density: Fraction of each task vector that is kept. One value, or one a model.
        lambda_: Scales the merged task vector before it is added.
        normalize: Divide by the sum of the weights.
        rescale: What makes up for the dropped elements: inverse divides by the density (the
            paper's), l1 restores the sum of magnitudes (mergekit's; true means this), none (or
            false) does nothing.
        modifiers: What acts on the merged change, in order: names, or mappings of one name to its
            parameters; or one of them.
        dtype: The output's dtype; else that of the base, else of the first model.
        name: The name of a bare array, of which random masks are made.
        seed: The seed of random masks.

    Returns:
        The merge: an array of the inputs' kind and shape, or a dict of them.

    Raises:
        RecipeError: A parameter is unknown or out of its range.
        ModelError: Names, shapes or dtypes do not fit together.
    """

def dare_ties(
    models: Sequence[_Tensors],
    base: _Tensors,
    *,
    onto: _Tensors | None = None,
    weights: float | Sequence[float] | None = None,
    density: float | Sequence[float] = 0.5,
    lambda_: float = 1.0,
    normalize: bool = False,
    rescale: Literal["inverse", "l1", "none"] | bool = "inverse",
    scope: Literal["tensor", "model"] = "tensor",
    modifiers: _Modifiers | None = None,
    dtype: object = None,
    name: str = "",
    seed: int = 42,
) -> _Tensors:
    r"""Drop at random, rescale, elect signs, and sum the elements that agree.

    θ = θ₀ + λ Σ_{i agrees} wᵢδ̂ᵢ,  δ̂ᵢ = mᵢ∘δᵢ / density,  mᵢ ~ Bernoulli(density);  agrees:
    sign(δ̂ᵢ) = sign(Σ wⱼδ̂ⱼ)   (over Σ_{i agrees} wᵢ if normalize)

    Source: Yu et al., Language models are Super Mario (DARE), ICML 2024, arXiv:2311.03099, with
    Yadav et al., arXiv:2306.01708.

    Args:
        models: NumPy arrays, CPU torch tensors (bfloat16 included), or dicts of either; all alike.
        base: What the models were fine-tuned from.
        onto: What the merged change is added to; the base if None.
        weights: How much of each model goes in; 1/N each if left out, which makes the merge a mean.
            One value, or one a model.
        density: Fraction of each task vector that is kept. One value, or one a model.
        lambda_: Scales the merged task vector before it is added.
        normalize: Divide by the sum of the weights.
        rescale: What makes up for the dropped elements: inverse divides by the density (the
            paper's), l1 restores the sum of magnitudes (mergekit's; true means this), none (or
            false) does nothing.
        scope: What the sums of rescale: l1 and the sign of a zero sum are taken over: each tensor,
            or the whole model.
        modifiers: What acts on the merged change, in order: names, or mappings of one name to its
            parameters; or one of them.
        dtype: The output's dtype; else that of the base, else of the first model.
        name: The name of a bare array, of which random masks are made.
        seed: The seed of random masks.

    Returns:
        The merge: an array of the inputs' kind and shape, or a dict of them.

    Raises:
        RecipeError: A parameter is unknown or out of its range.
        ModelError: Names, shapes or dtypes do not fit together.
    """

def della(
    models: Sequence[_Tensors],
    base: _Tensors,
    *,
    onto: _Tensors | None = None,
    weights: float | Sequence[float] | None = None,
    density: float | Sequence[float] = 0.5,
    epsilon: float | Sequence[float] = 0.15,
    lambda_: float = 1.0,
    normalize: bool = True,
    rescale: Literal["inverse", "l1", "none"] | bool = "inverse",
    modifiers: _Modifiers | None = None,
    dtype: object = None,
    name: str = "",
    seed: int = 42,
) -> _Tensors:
    r"""Drop at random, small elements first, rescale, elect signs, and merge the elements that agree.

    θ = θ₀ + λ Σ_{i agrees} wᵢδ̂ᵢ / Σ_{i agrees} wᵢ,  δ̂ᵢ = mᵢ∘δᵢ / pᵢ,  mᵢ ~ Bernoulli(pᵢ),  pᵢ =
    density − ε + 2ε·(rank of |δᵢ| in its row, 0 to 1);  agrees: sign(δ̂ᵢ) = sign(Σ wⱼδ̂ⱼ)

    Source: Deep et al., DELLA-Merging, 2024, arXiv:2406.11617.

    Args:
        models: NumPy arrays, CPU torch tensors (bfloat16 included), or dicts of either; all alike.
        base: What the models were fine-tuned from.
        onto: What the merged change is added to; the base if None.
        weights: How much of each model goes in; 1/N each if left out, which makes the merge a mean.
            One value, or one a model.
        density: Fraction of each task vector that is kept. One value, or one a model.
        epsilon: How far the smallest and the largest element of a row are from density in their
            probability of being kept. One value, or one a model.
        lambda_: Scales the merged task vector before it is added.
        normalize: Divide by the weights that agree (a mean rather than a sum).
        rescale: What makes up for the dropped elements: inverse divides each by its own probability
            (the paper's), l1 restores the sum of magnitudes (mergekit's; true means this), none (or
            false) does nothing.
        modifiers: What acts on the merged change, in order: names, or mappings of one name to its
            parameters; or one of them.
        dtype: The output's dtype; else that of the base, else of the first model.
        name: The name of a bare array, of which random masks are made.
        seed: The seed of random masks.

    Returns:
        The merge: an array of the inputs' kind and shape, or a dict of them.

    Raises:
        RecipeError: A parameter is unknown or out of its range.
        ModelError: Names, shapes or dtypes do not fit together.
    """

def della_linear(
    models: Sequence[_Tensors],
    base: _Tensors,
    *,
    onto: _Tensors | None = None,
    weights: float | Sequence[float] | None = None,
    density: float | Sequence[float] = 0.5,
    epsilon: float | Sequence[float] = 0.15,
    lambda_: float = 1.0,
    normalize: bool = False,
    rescale: Literal["inverse", "l1", "none"] | bool = "inverse",
    modifiers: _Modifiers | None = None,
    dtype: object = None,
    name: str = "",
    seed: int = 42,
) -> _Tensors:
    r"""Drop at random, small elements first, rescale, and sum the task vectors.

    θ = θ₀ + λ Σ wᵢδ̂ᵢ,  δ̂ᵢ = mᵢ∘δᵢ / pᵢ,  mᵢ ~ Bernoulli(pᵢ),  pᵢ = density − ε + 2ε·(rank of |δᵢ|
    in its row, 0 to 1)   (over Σ wᵢ if normalize)

    Source: Deep et al., DELLA-Merging, 2024, arXiv:2406.11617.

    Args:
        models: NumPy arrays, CPU torch tensors (bfloat16 included), or dicts of either; all alike.
        base: What the models were fine-tuned from.
        onto: What the merged change is added to; the base if None.
        weights: How much of each model goes in; 1/N each if left out, which makes the merge a mean.
            One value, or one a model.
        density: Fraction of each task vector that is kept. One value, or one a model.
        epsilon: How far the smallest and the largest element of a row are from density in their
            probability of being kept. One value, or one a model.
        lambda_: Scales the merged task vector before it is added.
        normalize: Divide by the sum of the weights.
        rescale: What makes up for the dropped elements: inverse divides each by its own probability
            (the paper's), l1 restores the sum of magnitudes (mergekit's; true means this), none (or
            false) does nothing.
        modifiers: What acts on the merged change, in order: names, or mappings of one name to its
            parameters; or one of them.
        dtype: The output's dtype; else that of the base, else of the first model.
        name: The name of a bare array, of which random masks are made.
        seed: The seed of random masks.

    Returns:
        The merge: an array of the inputs' kind and shape, or a dict of them.

    Raises:
        RecipeError: A parameter is unknown or out of its range.
        ModelError: Names, shapes or dtypes do not fit together.
    """

def breadcrumbs(
    models: Sequence[_Tensors],
    base: _Tensors,
    *,
    onto: _Tensors | None = None,
    weights: float | Sequence[float] | None = None,
    density: float | Sequence[float] = 0.1,
    gamma: float | Sequence[float] = 0.01,
    lambda_: float = 1.0,
    normalize: bool = False,
    rescale: Literal["inverse", "l1", "none"] | bool = "none",
    modifiers: _Modifiers | None = None,
    dtype: object = None,
    name: str = "",
    seed: int = 42,
) -> _Tensors:
    r"""Drop the largest and the smallest elements, and sum the task vectors.

    θ = θ₀ + λ Σ wᵢδ̂ᵢ,  δ̂ᵢ = the density·n largest of δᵢ after its γ·n largest   (over Σ wᵢ if
    normalize)

    Source: Davari & Belilovsky, Model Breadcrumbs, ECCV 2024, arXiv:2312.06795.

    Args:
        models: NumPy arrays, CPU torch tensors (bfloat16 included), or dicts of either; all alike.
        base: What the models were fine-tuned from.
        onto: What the merged change is added to; the base if None.
        weights: How much of each model goes in; 1/N each if left out, which makes the merge a mean.
            One value, or one a model.
        density: Fraction of each task vector that is kept. One value, or one a model.
        gamma: Fraction of each task vector that is dropped as outliers, the largest. One value, or
            one a model.
        lambda_: Scales the merged task vector before it is added.
        normalize: Divide by the sum of the weights.
        rescale: What makes up for the dropped elements: inverse divides by the density (the
            paper's), l1 restores the sum of magnitudes (mergekit's; true means this), none (or
            false) does nothing.
        modifiers: What acts on the merged change, in order: names, or mappings of one name to its
            parameters; or one of them.
        dtype: The output's dtype; else that of the base, else of the first model.
        name: The name of a bare array, of which random masks are made.
        seed: The seed of random masks.

    Returns:
        The merge: an array of the inputs' kind and shape, or a dict of them.

    Raises:
        RecipeError: A parameter is unknown or out of its range.
        ModelError: Names, shapes or dtypes do not fit together.
    """

def breadcrumbs_ties(
    models: Sequence[_Tensors],
    base: _Tensors,
    *,
    onto: _Tensors | None = None,
    weights: float | Sequence[float] | None = None,
    density: float | Sequence[float] = 0.1,
    gamma: float | Sequence[float] = 0.01,
    lambda_: float = 1.0,
    normalize: bool = False,
    rescale: Literal["inverse", "l1", "none"] | bool = "none",
    modifiers: _Modifiers | None = None,
    dtype: object = None,
    name: str = "",
    seed: int = 42,
) -> _Tensors:
    r"""Drop the largest and the smallest elements, elect signs, and sum the elements that agree.

    θ = θ₀ + λ Σ_{i agrees} wᵢδ̂ᵢ,  δ̂ᵢ = the density·n largest of δᵢ after its γ·n largest;
    agrees: sign(δ̂ᵢ) = sign(Σ wⱼδ̂ⱼ)   (over Σ_{i agrees} wᵢ if normalize)

    Source: Davari & Belilovsky, Model Breadcrumbs, ECCV 2024, arXiv:2312.06795, with Yadav et al.,
    arXiv:2306.01708.

    Args:
        models: NumPy arrays, CPU torch tensors (bfloat16 included), or dicts of either; all alike.
        base: What the models were fine-tuned from.
        onto: What the merged change is added to; the base if None.
        weights: How much of each model goes in; 1/N each if left out, which makes the merge a mean.
            One value, or one a model.
        density: Fraction of each task vector that is kept. One value, or one a model.
        gamma: Fraction of each task vector that is dropped as outliers, the largest. One value, or
            one a model.
        lambda_: Scales the merged task vector before it is added.
        normalize: Divide by the weights that agree (a mean rather than a sum).
        rescale: What makes up for the dropped elements: inverse divides by the density (the
            paper's), l1 restores the sum of magnitudes (mergekit's; true means this), none (or
            false) does nothing.
        modifiers: What acts on the merged change, in order: names, or mappings of one name to its
            parameters; or one of them.
        dtype: The output's dtype; else that of the base, else of the first model.
        name: The name of a bare array, of which random masks are made.
        seed: The seed of random masks.

    Returns:
        The merge: an array of the inputs' kind and shape, or a dict of them.

    Raises:
        RecipeError: A parameter is unknown or out of its range.
        ModelError: Names, shapes or dtypes do not fit together.
    """

def sce(
    models: Sequence[_Tensors],
    base: _Tensors,
    *,
    onto: _Tensors | None = None,
    select_topk: float = 1.0,
    lambda_: float = 1.0,
    modifiers: _Modifiers | None = None,
    dtype: object = None,
    name: str = "",
    seed: int = 42,
) -> _Tensors:
    r"""Select what differs most, weigh the models by their changes, and merge the elements that agree.

    θ = θ₀ + λ Σ_{i agrees} wᵢδ̂ᵢ / Σ_{i agrees} wᵢ,  δ̂ = δ where Var_i(δᵢ) is among the largest,
    wᵢ = mean δ̂ᵢ² / Σⱼ mean δ̂ⱼ²;  agrees: sign(δ̂ᵢ) = sign(Σ δ̂ⱼ)

    Source: Wan et al., FuseChat, 2024, arXiv:2408.07990.

    Args:
        models: NumPy arrays, CPU torch tensors (bfloat16 included), or dicts of either; all alike.
        base: What the models were fine-tuned from.
        onto: What the merged change is added to; the base if None.
        select_topk: Fraction kept of the elements in which the models differ, those that differ
            most.
        lambda_: Scales the merged task vector before it is added.
        modifiers: What acts on the merged change, in order: names, or mappings of one name to its
            parameters; or one of them.
        dtype: The output's dtype; else that of the base, else of the first model.
        name: The name of a bare array, of which random masks are made.
        seed: The seed of random masks.

    Returns:
        The merge: an array of the inputs' kind and shape, or a dict of them.

    Raises:
        RecipeError: A parameter is unknown or out of its range.
        ModelError: Names, shapes or dtypes do not fit together.
    """

def model_stock(
    models: Sequence[_Tensors],
    base: _Tensors,
    *,
    onto: _Tensors | None = None,
    filter_wise: bool = False,
    clamp: bool = True,
    modifiers: _Modifiers | None = None,
    dtype: object = None,
    name: str = "",
    seed: int = 42,
) -> _Tensors:
    r"""As far from the base towards the models' mean as the angle between task vectors says.

    θ = θ₀ + t Σ δᵢ / N,  t = Nc / (1 + (N−1) c),  c = the mean of ⟨δᵢ, δⱼ⟩ / ‖δᵢ‖‖δⱼ‖ over i < j

    Source: Jang et al., Model Stock: All we need is just a few fine-tuned models, ECCV 2024,
    arXiv:2403.19522.

    Args:
        models: NumPy arrays, CPU torch tensors (bfloat16 included), or dicts of either; all alike.
        base: What the models were fine-tuned from.
        onto: What the merged change is added to; the base if None.
        filter_wise: A t for each row of a tensor, rather than for the whole of it.
        clamp: Keep t between 0 (the base) and 1 (the mean), and angles as they are; mergekit does
            not, and takes short task vectors for unlike.
        modifiers: What acts on the merged change, in order: names, or mappings of one name to its
            parameters; or one of them.
        dtype: The output's dtype; else that of the base, else of the first model.
        name: The name of a bare array, of which random masks are made.
        seed: The seed of random masks.

    Returns:
        The merge: an array of the inputs' kind and shape, or a dict of them.

    Raises:
        RecipeError: A parameter is unknown or out of its range.
        ModelError: Names, shapes or dtypes do not fit together.
    """

def tsv(
    models: Sequence[_Tensors],
    base: _Tensors,
    *,
    onto: _Tensors | None = None,
    weights: float | Sequence[float] = 1.0,
    lambda_: float = 1.0,
    matrices: Literal["linear", "all", "projections", "none"] = "linear",
    rank_tol: float | Literal["storage"] = 1e-06,
    modifiers: _Modifiers | None = None,
    dtype: object = None,
    name: str = "",
    seed: int = 42,
) -> _Tensors:
    r"""Each task vector's leading singular vectors, decorrelated, with their singular values.

    Δ = λ U⊥ diag(σ) V⊥ᵀ,  U⊥ = polar([U₁ … U_N]), V⊥ alike;  Uᵢ diag(σᵢ) Vᵢᵀ = the first min(m, n)
    // N singular triplets of wᵢδᵢ;  tensors that are no matrices: λ Σ wᵢδᵢ / N

    Source: Gargiulo et al., Task Singular Vectors: Reducing Task Interference in Model Merging,
    CVPR 2025, arXiv:2412.00081.

    Args:
        models: NumPy arrays, CPU torch tensors (bfloat16 included), or dicts of either; all alike.
        base: What the models were fine-tuned from.
        onto: What the merged change is added to; the base if None.
        weights: How much of each model goes in: its task vector is scaled by it before all else.
            One value, or one a model.
        lambda_: Scales the merged task vector before it is added.
        matrices: Which tensors are matrices: linear (two axes, neither the vocabulary), all (two
            axes), projections (q, k, v, o, gate, up, down), none.
        rank_tol: Singular values below this share of the largest are no direction; storage: below
            what rounding the checkpoints to their types makes. A float or "storage".
        modifiers: What acts on the merged change, in order: names, or mappings of one name to its
            parameters; or one of them.
        dtype: The output's dtype; else that of the base, else of the first model.
        name: The name of a bare array, of which random masks are made.
        seed: The seed of random masks.

    Returns:
        The merge: an array of the inputs' kind and shape, or a dict of them.

    Raises:
        RecipeError: A parameter is unknown or out of its range.
        ModelError: Names, shapes or dtypes do not fit together.
    """

def iso_c(
    models: Sequence[_Tensors],
    base: _Tensors,
    *,
    onto: _Tensors | None = None,
    weights: float | Sequence[float] = 1.0,
    lambda_: float = 1.0,
    matrices: Literal["linear", "all", "projections", "none"] = "linear",
    rank_tol: float | Literal["storage"] = 1e-06,
    modifiers: _Modifiers | None = None,
    dtype: object = None,
    name: str = "",
    seed: int = 42,
) -> _Tensors:
    r"""The sum of the task vectors with all singular values made alike.

    Δ = λ σ̄ U Vᵀ,  U diag(σ) Vᵀ = A = Σ wᵢδᵢ,  σ̄ = Σσ / min(m, n);  tensors that are no matrices:
    λ A / N

    Source: Marczak et al., No Task Left Behind: Isotropic Model Merging with Common and Task-
    Specific Subspaces, ICML 2025, arXiv:2502.04959.

    Args:
        models: NumPy arrays, CPU torch tensors (bfloat16 included), or dicts of either; all alike.
        base: What the models were fine-tuned from.
        onto: What the merged change is added to; the base if None.
        weights: How much of each model goes in: its task vector is scaled by it before all else.
            One value, or one a model.
        lambda_: Scales the merged task vector before it is added.
        matrices: Which tensors are matrices: linear (two axes, neither the vocabulary), all (two
            axes), projections (q, k, v, o, gate, up, down), none.
        rank_tol: Singular values below this share of the largest are no direction; storage: below
            what rounding the checkpoints to their types makes. A float or "storage".
        modifiers: What acts on the merged change, in order: names, or mappings of one name to its
            parameters; or one of them.
        dtype: The output's dtype; else that of the base, else of the first model.
        name: The name of a bare array, of which random masks are made.
        seed: The seed of random masks.

    Returns:
        The merge: an array of the inputs' kind and shape, or a dict of them.

    Raises:
        RecipeError: A parameter is unknown or out of its range.
        ModelError: Names, shapes or dtypes do not fit together.
    """

def iso_cts(
    models: Sequence[_Tensors],
    base: _Tensors,
    *,
    onto: _Tensors | None = None,
    weights: float | Sequence[float] = 1.0,
    lambda_: float = 1.0,
    common_space_fraction: float = 0.8,
    matrices: Literal["linear", "all", "projections", "none"] = "linear",
    rank_tol: float | Literal["storage"] = 1e-06,
    modifiers: _Modifiers | None = None,
    dtype: object = None,
    name: str = "",
    seed: int = 42,
) -> _Tensors:
    r"""The sum's leading directions and each task vector's own beyond them, decorrelated, with all singular values alike.

    Δ = λ σ̄ U⊥ V⊥ᵀ,  U⊥ = polar([U_c U₁ … U_N]), V⊥ alike, σ̄ = the mean of their singular values;
    U_c, V_c: the first c of A = Σ wᵢδᵢ;  Uᵢ, Vᵢ: the first k of (I − U_c U_cᵀ) wᵢδᵢ;  k = round((r
    − int(f r)) / N), c = r − N k, r = min(m, n);  tensors that are no matrices: λ A / N

    Source: Marczak et al., No Task Left Behind: Isotropic Model Merging with Common and Task-
    Specific Subspaces, ICML 2025, arXiv:2502.04959.

    Args:
        models: NumPy arrays, CPU torch tensors (bfloat16 included), or dicts of either; all alike.
        base: What the models were fine-tuned from.
        onto: What the merged change is added to; the base if None.
        weights: How much of each model goes in: its task vector is scaled by it before all else.
            One value, or one a model.
        lambda_: Scales the merged task vector before it is added.
        common_space_fraction: How much of the singular vectors are those of the sum, f.
        matrices: Which tensors are matrices: linear (two axes, neither the vocabulary), all (two
            axes), projections (q, k, v, o, gate, up, down), none.
        rank_tol: Singular values below this share of the largest are no direction; storage: below
            what rounding the checkpoints to their types makes. A float or "storage".
        modifiers: What acts on the merged change, in order: names, or mappings of one name to its
            parameters; or one of them.
        dtype: The output's dtype; else that of the base, else of the first model.
        name: The name of a bare array, of which random masks are made.
        seed: The seed of random masks.

    Returns:
        The merge: an array of the inputs' kind and shape, or a dict of them.

    Raises:
        RecipeError: A parameter is unknown or out of its range.
        ModelError: Names, shapes or dtypes do not fit together.
    """

def ram(
    models: Sequence[_Tensors],
    base: _Tensors,
    *,
    onto: _Tensors | None = None,
    epsilon: float = 1e-05,
    lambda_: float = 1.0,
    modifiers: _Modifiers | None = None,
    dtype: object = None,
    name: str = "",
    seed: int = 42,
) -> _Tensors:
    r"""Mean of the task vectors that change an element.

    θ = θ₀ + λ Σ_{i∈A} δᵢ / |A|,  A = {i : |δᵢ| > ε}, element by element

    Source: Behavior Knowledge Merge in Reinforced Agentic Models (RAM), 2026, arXiv:2601.13572.

    Args:
        models: NumPy arrays, CPU torch tensors (bfloat16 included), or dicts of either; all alike.
        base: What the models were fine-tuned from.
        onto: What the merged change is added to; the base if None.
        epsilon: A change of at most this counts as none.
        lambda_: Scales the merged task vector before it is added.
        modifiers: What acts on the merged change, in order: names, or mappings of one name to its
            parameters; or one of them.
        dtype: The output's dtype; else that of the base, else of the first model.
        name: The name of a bare array, of which random masks are made.
        seed: The seed of random masks.

    Returns:
        The merge: an array of the inputs' kind and shape, or a dict of them.

    Raises:
        RecipeError: A parameter is unknown or out of its range.
        ModelError: Names, shapes or dtypes do not fit together.
    """

def ramplus_tl(
    models: Sequence[_Tensors],
    base: _Tensors,
    *,
    onto: _Tensors | None = None,
    r: float = 0.1,
    alpha: float = 0.2,
    epsilon: float = 1e-05,
    lambda_: float = 1.0,
    modifiers: _Modifiers | None = None,
    dtype: object = None,
    name: str = "",
    seed: int = 42,
) -> _Tensors:
    r"""Mean of the task vectors that change an element, what only one changes enlarged.

    θ = θ₀ + λ Σ_{i∈A} δᵢ / |A|, and θ₀ + λ sᵢδᵢ where A = {i},  sᵢ = 1 + r·clamp(sharedᵢ /
    max(ownᵢ, ε), 0, α);  A = {i : |δᵢ| > ε}

    Source: Behavior Knowledge Merge in Reinforced Agentic Models (RAM+), 2026, arXiv:2601.13572.

    Args:
        models: NumPy arrays, CPU torch tensors (bfloat16 included), or dicts of either; all alike.
        base: What the models were fine-tuned from.
        onto: What the merged change is added to; the base if None.
        r: How much of the ratio of shared to own changes is made up for.
        alpha: The largest ratio that counts.
        epsilon: A change of at most this counts as none.
        lambda_: Scales the merged task vector before it is added.
        modifiers: What acts on the merged change, in order: names, or mappings of one name to its
            parameters; or one of them.
        dtype: The output's dtype; else that of the base, else of the first model.
        name: The name of a bare array, of which random masks are made.
        seed: The seed of random masks.

    Returns:
        The merge: an array of the inputs' kind and shape, or a dict of them.

    Raises:
        RecipeError: A parameter is unknown or out of its range.
        ModelError: Names, shapes or dtypes do not fit together.
    """

def nearswap(
    models: Sequence[_Tensors],
    base: _Tensors,
    *,
    onto: _Tensors | None = None,
    t: float = 0.0001,
    lambda_: float = 1.0,
    modifiers: _Modifiers | None = None,
    dtype: object = None,
    name: str = "",
    seed: int = 42,
) -> _Tensors:
    r"""The base, with another model's weights where the two are near.

    θ = θ₀ + λ ω∘δ,  ω = clamp(t / max(|δ|, 1e-6), 0, 1),  δ = θ₁ − θ₀

    Source: Alchemonaut, QuartetAnemoi-70B-t0.0001 (model card), 2024; mergekit's nearswap.

    Args:
        models: NumPy arrays, CPU torch tensors (bfloat16 included), or dicts of either; all alike.
        base: What the models were fine-tuned from.
        onto: What the merged change is added to; the base if None.
        t: How far an element may move: elements nearer than this are swapped, others move by this
            much.
        lambda_: Scales the merged task vector before it is added.
        modifiers: What acts on the merged change, in order: names, or mappings of one name to its
            parameters; or one of them.
        dtype: The output's dtype; else that of the base, else of the first model.
        name: The name of a bare array, of which random masks are made.
        seed: The seed of random masks.

    Returns:
        The merge: an array of the inputs' kind and shape, or a dict of them.

    Raises:
        RecipeError: A parameter is unknown or out of its range.
        ModelError: Names, shapes or dtypes do not fit together.
    """

def arcee_fusion(
    models: Sequence[_Tensors],
    base: _Tensors,
    *,
    onto: _Tensors | None = None,
    lambda_: float = 1.0,
    modifiers: _Modifiers | None = None,
    dtype: object = None,
    name: str = "",
    seed: int = 42,
) -> _Tensors:
    r"""The base, with another model's elements where they matter most.

    θ = θ₀ + λ m∘δ,  m = 1 where s ≥ median(s) + 1.5·(Q₃(s) − Q₁(s)),  s = |δ|·KL(softmax θ₁ ‖
    softmax θ₀) by rows

    Source: Arcee AI, mergekit v0.1 (Arcee Fusion), 2025, github.com/arcee-ai/mergekit.

    Args:
        models: NumPy arrays, CPU torch tensors (bfloat16 included), or dicts of either; all alike.
        base: What the models were fine-tuned from.
        onto: What the merged change is added to; the base if None.
        lambda_: Scales the merged task vector before it is added.
        modifiers: What acts on the merged change, in order: names, or mappings of one name to its
            parameters; or one of them.
        dtype: The output's dtype; else that of the base, else of the first model.
        name: The name of a bare array, of which random masks are made.
        seed: The seed of random masks.

    Returns:
        The merge: an array of the inputs' kind and shape, or a dict of them.

    Raises:
        RecipeError: A parameter is unknown or out of its range.
        ModelError: Names, shapes or dtypes do not fit together.
    """

def passthrough(
    models: Sequence[_Tensors],
    base: _Tensors | None = None,
    *,
    scale: float | Sequence[float] = 1.0,
    dtype: object = None,
    name: str = "",
    seed: int = 42,
) -> _Tensors:
    r"""One model's tensors as they are, for stacking layers.

    θ = s·θ₁

    Source: Goddard et al., Arcee's MergeKit, EMNLP 2024, arXiv:2403.13257.

    Args:
        models: NumPy arrays, CPU torch tensors (bfloat16 included), or dicts of either; all alike.
        base: One more input, the last, if given.
        scale: What the weights are multiplied by; 1 copies them. One value, or one a model.
        dtype: The output's dtype; else that of the base, else of the first model.
        name: The name of a bare array, of which random masks are made.
        seed: The seed of random masks.

    Returns:
        The merge: an array of the inputs' kind and shape, or a dict of them.

    Raises:
        RecipeError: A parameter is unknown or out of its range.
        ModelError: Names, shapes or dtypes do not fit together.
    """
