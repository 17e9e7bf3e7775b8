import pytest
import torch
import torch.nn.functional as F

from models import build_model
from models.carafe import CARAFE, reassemble


@pytest.mark.parametrize("size", [(1, 1), (16, 16), (33, 50), (70, 17)])
def test_any_size_goes_in_and_comes_out(size):
    model = build_model("cares_unet", in_channels=3, num_classes=4, base_channels=2)
    assert model(torch.rand(2, 3, *size)).shape == (2, 4, *size)


def test_padding_does_not_move_the_image():
    model = build_model("cares_unet", base_channels=2).eval()
    image = torch.rand(1, 1, 64, 64)
    image[..., 48:] = image[..., 47:48]  # what padding a width of 48 to 64 would repeat, were it needed
    with torch.inference_mode():
        padded = model(image[..., :40])
        by_hand = model(F.pad(image[..., :40], (0, 8, 0, 0), mode="replicate"))[..., :40]
    assert torch.equal(padded, by_hand)


def test_published_size():
    parameters = sum(p.numel() for p in build_model("cares_unet").parameters())
    assert round(parameters / 1e6, 1) == 54.4  # 56.5 M published, of which 2.1 M are on no path


def unfolded(x, kernels):
    """CARAFE's definition, by way of the 25-fold copy that the implementation avoids."""
    n, c, h, w = x.shape
    taps, subpixels = kernels.shape[1:3]
    windows = F.unfold(x, round(taps**0.5), padding=round(taps**0.5) // 2).view(n, c, taps, 1, h, w)
    summed = (windows * kernels[:, None]).sum(dim=2)
    return F.pixel_shuffle(summed.reshape(n, c * subpixels, h, w), round(subpixels**0.5))


@pytest.mark.parametrize(("kernel_size", "scale"), [(5, 2), (3, 2), (3, 3)])
def test_reassembly_against_its_definition(kernel_size, scale):
    x = torch.randn(2, 2, 4, 3, dtype=torch.double, requires_grad=True)
    kernels = torch.randn(2, kernel_size**2, scale**2, 4, 3, dtype=torch.double, requires_grad=True)
    assert torch.allclose(reassemble(x, kernels), unfolded(x, kernels))
    assert torch.autograd.gradcheck(reassemble, (x, kernels))


def test_carafe_keeps_no_unfolded_copy():
    carafe, kept = CARAFE(32, 16), {}

    def keep(tensor):
        kept[tensor.data_ptr()] = tensor.untyped_storage().nbytes() // tensor.element_size()
        return tensor

    x = torch.rand(1, 32, 24, 24, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        carafe(x)
    # Unfolding would keep 25 x 32 channels; the largest tensor of ours holds the 100 kernel weights of a pixel.
    assert max(kept.values()) < 101 * 24 * 24


def test_carafe_under_autocast():
    carafe, x = CARAFE(8, 4), torch.rand(1, 8, 10, 12)
    with torch.autocast("cpu", torch.bfloat16):
        half = carafe(x)
    half.sum().backward()
    assert torch.allclose(half.float(), carafe(x), atol=0.02)
