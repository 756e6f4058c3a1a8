"""What the sample text talks about: one scene is one kind of document.

A template is a line of Korean with four marks, which :mod:`kogpt2_gluon.data.sample_text` reads:

    [a|b|c]        one of several, possibly nothing; may be nested
    {city}         a word of the document, drawn at its first use and kept; {friend2} is another friend
    {3~9}          a figure drawn anew: {1000~9000/500 원} is money in steps of 500, {2~9 한} a native number word,
                   {10~90 일} a Sino-Korean one, {1.5~4.5} has one decimal, {1000~90000 ,} has commas
    <보 past>      a predicate: a final mood in the document's style, or an ending (<보 아서>); 이 is the copula
    ~은            a particle that agrees with what stands before it

A document takes an opening, some of the middle lines in their order, and perhaps a closing; so a line may look back only
on the opening. In a script every middle line is said.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Scene:
    """One kind of document; `styles` are those of sample_grammar.STYLES that suit it, `weight` how often it comes."""

    name: str
    weight: int
    styles: str
    opening: str
    middle: str
    closing: str = ""
    script: bool = False


PLAIN = "haeyo haera hae"
POLITE = "haeyo hapnida"
WRITTEN = "hapnida haera"
REVIEW = "haeyo hapnida haera hae eum"

SCENES = (
    Scene(
        "film_good",
        9,
        REVIEW,
        """
        {when} [극장에서|집에서|친구와 함께|가족과 함께|혼자] {film}~을 <보 past>
        {film}~은 {fullname} 감독의 [새|첫|두 번째|네 번째] [영화|작품]<이 pres>
        [별로|크게] 기대하지 않고 봤는데 {film}~은 [정말|생각보다|아주|끝까지] <재미있 past>
        {film}~을 벌써 [두|세] 번이나 <보 past>
        요즘 본 {genre} 중에서 {film}~이 가장 <좋 past>
        """,
        """
        [{hero}~이 {filmplace}~으로 돌아가는 이야기|{hero}~과 {hero2}~이 {filmplace}에서 만나는 이야기]<이 pres>
        {fullname2}의 연기가 [특히|무엇보다|생각보다] <훌륭하 past>
        {fullname2}~과 {fullname3}의 호흡도 <좋 past>
        줄거리는 <단순하 지만> [장면 하나하나|대사 한마디 한마디]~이 마음에 <남 past>
        {filmsound}~이 이야기와 [잘|무척 잘] <어울리 past>
        상영 시간이 {95~165}분인데 [조금도|전혀] <지루하 지> <않 past>
        [초반|처음]에는 조금 <느리 지만> [중반|후반]부터 [몹시|눈에 띄게] <빨라지 past>
        {filmplace}~을 담은 [화면|장면]~이 [무척|참] <아름답 past>
        마지막 장면에서는 [나도 모르게 눈물이 <나 past>|한참 동안 자리에서 일어나지 <못하 past>|가슴이 <뭉클하 past>]
        """,
        """
        별점은 5점 만점에 {4.0~5.0}점<이 pres>
        [가족|친구|부모님|아이들]~과 함께 보기에 <좋 은> [영화|작품]<이 pres>
        기회가 되면 [한 번 더|다시] 보고 <싶 pres>
        {genre}~을 <좋아하 는> 사람에게 [꼭|적극] <추천하 pres>
        [오랜만에|모처럼] [좋은|따뜻한] 영화를 <만나 아서> <기쁘 past>
        """,
    ),
    Scene(
        "film_bad",
        7,
        REVIEW,
        """
        {when} {film}~을 봤는데 [기대보다|생각보다] <아쉽 past>
        예고편을 보고 {film}~을 골랐는데 [많이|조금] <실망하 past>
        {film}~은 [소문만큼|광고만큼] <재미있 지는> <않 past>
        [표값이|시간이] <아깝 past>. {film}~은 [다시|두 번] 보고 싶지 <않 past>
        """,
        """
        이야기가 [너무|지나치게] <뻔하 아서> [중간부터 결말이 <보이 past>|보는 내내 <지루하 past>]
        {fullname}의 연기는 [괜찮았|나쁘지 않았|훌륭했]지만 [대본|대사]~이 <엉성하 past>
        {hero}~이 갑자기 마음을 바꾸는 까닭을 [끝까지|도무지] 알 수 <없 past>
        {filmsound}~은 [지나치게|너무] <시끄럽 past>
        상영 시간이 {130~180}분이나 <되 아서> 보기에 <힘들 past>
        웃기려는 장면이 [많았|자주 나왔]지만 [한 번도|거의] 웃지 <않 past>
        같은 감독의 {film2}~이 [훨씬|차라리] <낫 past>
        {filmplace}의 [풍경|화면]~은 <아름답 지만> 이야기와 잘 어울리지 <않 past>
        """,
        """
        별점은 5점 만점에 {1.0~2.5}점<이 pres>
        [그래도|그나마] {filmsound2}~은 <괜찮 past>
        {genre}~을 [아주|정말] <좋아하 는> 사람이 아니라면 추천하지 <않 pres>
        다음 작품은 [조금 더|더] <낫 기를> <바라 pres>
        """,
    ),
    Scene(
        "product_good",
        9,
        REVIEW,
        """
        {when} {product}~을 새로 <사 past>
        {brand} {product}~을 {price}에 <사 past>
        {product}~을 [한 달|두 달|석 달|반년]째 쓰고 <있 pres>
        친구의 추천으로 {brand} {product}~을 <주문하 past>
        쓰던 {product}~이 [낡아서|고장 나서] {brand}~으로 <바꾸 past>
        """,
        """
        주문하고 {2~6}일 만에 받았는데 포장이 <꼼꼼하 past>
        {aspect}~이 [정말|아주|생각보다|기대보다] <좋 past>
        {use} <{usev} 는데> {aspect}~과 {aspect2} 모두 <만족스럽 past>
        [처음에는 {price}~이 비싸다고 생각했지만|가격은 {price}인데] 써 보니 돈이 아깝지 <않 past>
        {aspect2}도 [전에 쓰던 것보다|다른 제품보다] [훨씬|조금] <낫 past>
        [색상|디자인]~이 사진과 [똑같아서|거의 같아서] 마음에 <들 past>
        궁금한 점을 문의했더니 {5~50}분 만에 [친절한|자세한] 답이 <오 past>
        설명서가 <쉽 아서> [부모님도|아이도|누구나] 금방 쓸 수 <있 past>
        """,
        """
        [하나|한 개] 더 사서 {relative}에게 <선물하 plan>
        [오래오래|앞으로도] 잘 쓸 수 있을 것 <같 pres>
        {product}~을 고민하는 사람에게 <추천하 pres>
        별점 {4~5}점을 <주 pres>
        {use} <{usev} 기에> [딱|아주] <좋 은> 제품<이 pres>
        """,
    ),
    Scene(
        "product_bad",
        7,
        REVIEW,
        """
        {when} 받은 {product}~이 [일주일|보름|사흘|한 달] 만에 <고장나 past>
        {brand} {product}~을 샀는데 {aspect}~이 <실망스럽 past>
        {price}~을 주고 산 {product}인데 기대에 [크게|많이] 못 <미치 past>
        {product}~을 [교환했|바꿨]는데 [또|다시] 같은 문제가 <생기 past>
        """,
        """
        배송이 {6~15}일이나 걸려서 [무척|너무] <답답하 past>
        {aspect}~은 <괜찮 지만> {aspect2}~이 [많이|너무] <아쉽 past>
        {use} <{usev} 기에는> [너무|조금] <불편하 past>
        사진으로 볼 때보다 [훨씬|조금] <촌스럽 past>
        상자를 열어 보니 [한쪽 모서리가 깨져|설명서가 빠져|먼지가 묻어] <있 past>
        고객 센터에 {3~9 한} 번이나 전화했지만 [통화가 되지 <않 past>|기다리라는 말만 <듣 past>]
        반품을 신청하니 배송비 {3000~9000/500 원}~을 내라고 <하 past>
        같은 값이면 {brand2}~이 [훨씬|차라리] <낫 past>
        """,
        """
        [결국|할 수 없이] <환불하 past>
        다시는 이 회사 제품을 사지 <않 guess>
        별점은 {1~2}점도 <아깝 pres>
        {aspect2}만 나아진다면 다시 사고 <싶 pres>
        """,
    ),
    Scene(
        "weather_diary",
        5,
        PLAIN,
        """
        오늘 {city}~은 아침부터 [날씨가|공기가] <{air} past>
        {season}~이 <되 아서> 날씨가 많이 <{air} past>
        {when} [갑자기|하루 종일] {rain}~이 <내리 past>
        """,
        """
        기온은 {low}도에서 {high}도 사이<이 past>
        우산을 [안 가져와서|집에 두고 와서] [옷이 다 <젖 past>|편의점에서 {3500~12000/500 원}짜리 우산을 <사 past>]
        창밖을 <보 으니> [나뭇잎의 빛깔이|구름이|사람들의 옷차림이] 어제와 <다르 past>
        {wear}~을 챙겨서 {place}~으로 <나가 past>
        {drink}~을 마시며 [창밖을 <바라보 past>|책을 <읽 past>|음악을 <듣 past>]
        길이 <막히 아서> [회사|학교]에 {10~50}분이나 <늦 past>
        {season}~을 <좋아하 는> {friend}에게 사진을 <보내 past>
        """,
        """
        내일은 하늘이 <맑 으면> <좋 guess>
        [다음 주|주말]에는 {place}에 <가 아> <보 plan>
        {season}~은 [늘|언제나] 이렇게 [갑자기|조용히] <오 pres>
        """,
    ),
    Scene(
        "travel",
        10,
        REVIEW,
        """
        {when} {city}~으로 여행을 <다녀오 past>
        {friend}~과 함께 {2~4 일} 박 일정으로 {city}에 <가 past>
        {ride}~을 타고 {city}에 <가 past>
        {smonth}에 {friend}~과 {city}~을 <여행하 past>
        {city}에 갈 때마다 {sight}~을 <찾 pres>
        """,
        """
        {city}까지는 {ride}~으로 {2~5 한} 시간쯤 <걸리 past>
        [첫날에는|도착하자마자|짐을 풀고] {sight}~을 <둘러보 past>
        {sight}에서 바라본 [풍경|노을|하늘]~이 [정말|참|무척] <아름답 past>
        [점심|저녁]에는 {cityfood}~을 먹었는데 [값도 싸고|양도 많고|줄은 길었지만] <맛있 past>
        숙소는 {sight2}에서 걸어서 {3~20}분 거리였고 하룻밤에 {45000~190000/5000 원}<이 past>
        {city} 사람들은 [길을 물을 때마다 <친절하 past>|말씨가 <다정하 past>]
        둘째 날에는 {sight2} 근처의 [카페|서점|찻집]에서 {drink}~을 <마시 past>
        [식당|가게]에서 파는 {cityfood2}~은 {8000~30000/1000 원}<이 past>
        {city}의 [바람|공기|밤거리]~은 우리 동네와 많이 <다르 past>
        """,
        """
        [다음에는|내년에는] [부모님|아이들|가족]~과 함께 {city}에 다시 가고 <싶 pres>
        {city}에 간다면 {sight}에는 꼭 <가 아> <보 아야> <하 pres>
        돌아오는 길에는 [사진을 <정리하 past>|푹 <자 past>|다음 여행을 <계획하 past>]
        여행 경비는 모두 {150000~680000/10000 원}쯤 <들 past>
        """,
    ),
    Scene(
        "recipe",
        10,
        "haeyo hapnida haera",
        """
        {dish}~은 {ing}~과 {ing2}만 <있 으면> 집에서도 쉽게 만들 수 <있 pres>
        [오늘은|이번에는] {dish} {2~6 일} 인분을 만드는 법을 <소개하 pres>
        {ing}~을 듬뿍 넣은 {dish}~은 맛이 <{taste} pres>
        {dish}~을 만들려면 먼저 {ing}~을 [넉넉하게|적당히] <준비하 pres>
        """,
        """
        재료는 {ing}, {ing2}, 그리고 {ing3}<이 pres>
        {ing}~은 [미리|먼저] 손질하고 {ing2}~은 [나중에 넣을 수 있게|물기를 빼서|따로] 그릇에 <담 아> <두 pres>
        [간장|고춧가루|참기름|소금] {1~3 한} [숟가락|작은술]~으로 간을 <맞추 pres>
        [이제|그다음에] {how} <{cook} pres>
        {ing3}~은 [맨 나중에|불을 끄기 전에|마지막에] <넣 으면> [맛|향]~이 <좋 pres>
        너무 <싱겁 으면> [소금|간장]~을 조금 더 넣고, 너무 <짜 으면> {ing2}~을 더 <넣 pres>
        """,
        """
        [따뜻한|갓 지은] [밥|보리밥]~과 함께 <먹 으면> 더 <맛있 pres>
        남은 {dish}~은 [냉장고에|뚜껑이 있는 그릇에] <넣 으면> {2~4}일쯤 두고 먹을 수 <있 pres>
        다 만드는 데 {20~60/5}분쯤 <걸리 pres>
        """,
    ),
    Scene(
        "restaurant",
        8,
        REVIEW,
        """
        {when} {district}에 있는 식당에서 {dish}~을 <먹 past>
        {friend}~이 추천한 {dish} 집에 <다녀오 past>
        회사 근처에 {dish}~을 잘하는 식당이 새로 <생기 past>
        """,
        """
        {dish} 한 그릇에 {7000~16000/500 원}<이 past>
        {dish}~은 [아주|생각보다|소문대로] <{taste} past>
        {ing}~이 [듬뿍|넉넉히|생각보다 많이] 들어 <있 past>
        반찬은 {3~8} 가지가 나왔는데 [모두|하나같이] <맛있 past>
        [점심시간|주말]이라 {10~50}분쯤 <기다리 past>
        [사장님|주인아주머니]께서 [밥을 더 <주 hon.past>|자리를 친절하게 <안내하 hon.past>|맛이 어떠냐고 <묻 hon.past>]
        가게는 [<작 지만>|<오래되 았지만>] 아주 <깨끗하 past>
        밥을 먹고 나서 옆집에서 {drink}~을 <마시 past>
        """,
        """
        다음에는 {dish2}도 먹어 보고 <싶 pres>
        {weekday}에는 문을 <닫 는다니> 미리 확인하고 <가 아야> <하 pres>
        또 <가 plan>
        {dish}~을 <좋아하 는> 사람이라면 <만족하 plan>
        """,
    ),
    Scene(
        "diary",
        10,
        PLAIN,
        """
        {when} {friend}~과 함께 {place}에 <가 past>
        {when} 오랜만에 {friend}~을 <만나 past>
        {friend}~이 {when} 우리 집에 <놀러오 past>
        요즘 {I}는 {friend}~과 {hobby}에 푹 <빠지 아> <있 pres>
        """,
        """
        {friend}~은 요즘 {job}~으로 <일하 고> <있 pres>
        우리는 {drink}~과 {snack}~을 먹으면서 {2~5 한} 시간 동안 이야기를 <나누 past>
        {friend}~은 {hobby}~을 {2~9 한} 달째 배우고 <있 pres>
        {friend}~이 [시장|편의점|가게]에서 {snack}~을 {2000~9000/500 원}어치 <사 past>
        {fruit}도 {2~8 한} 개 사서 나누어 <먹 past>
        {friend}~이 들려준 [여행|학교|직장|어린 시절] 이야기가 무척 <재미있 past>
        {my}가 요즘 읽는 {booktopic} 책 이야기를 했더니 {friend}도 읽고 싶다고 <하 past>
        돌아오는 길에 {friend}에게 [작은 선물|책 한 권|꽃 한 다발]~을 <받 past>
        """,
        """
        집에 오니 {8~11 한} 시가 넘었지만 마음이 <편하 past>
        {friend}~과는 {weekday}에 다시 만나기로 <하 past>
        [참|정말|오랜만에] 즐거운 하루<이 past>
        {friend}~이 있어서 [참|정말] <든든하 pres>
        """,
    ),
    Scene(
        "family",
        9,
        "haeyo hapnida haera",
        """
        {elder}께서 {when} 우리 집에 <오 hon.past>
        {when} {elder} 댁에 <다녀오 past>
        {elder}께서는 [시골|바닷가|{town}]에 혼자 <살 hon.pres>
        {elder}께서는 올해 {71~94 일} 세가 <되 hon.past>
        """,
        """
        {elder}께서는 [아침마다|날마다] {2~5 일} 킬로미터를 <걷 hon.pres>
        {elder}께서 {dish}~을 맛있게 <드시 past>
        {elder}께서 좋아하시는 {fruit}~을 {2~9 한} 개 <사 past>
        {elder}께서는 [옛날|전쟁 때|젊은 시절] 이야기를 [천천히|재미있게] 들려 <주 hon.past>
        {elder}께서는 {hobby}~을 무척 <좋아하 hon.pres>
        {elder}께 {hobby2}~을 좋아하느냐고 여쭈어 보니 웃기만 <하 hon.past>
        {relative}도 {elder}께 {drink}~을 타 <드리 past>
        {elder}께서는 요즘 [무릎이|허리가] 조금 <아프 hon.pres>. 그래서 [병원에 <모시 고> <가 past>|푹 쉬시라고 <말씀드리 past>]
        밤이 되자 {elder}께서는 일찍 <주무시 past>
        """,
        """
        {elder}께서 오래오래 <건강하 으셨으면> <좋 guess>
        {elder}께 자주 전화를 <드리 아야> <하 guess>
        [다음 달|설|추석]에 {elder}~을 다시 <뵈 plan>
        """,
    ),
    Scene(
        "school",
        7,
        "haeyo haera hapnida",
        """
        {teacher}께서 {when} {subject} 숙제를 내 <주 hon.past>
        우리 학교 {teacher}께서는 {filmplace}에서 <태어나 hon.past>
        {when} {teacher}께 {subject} 문제를 <여쭤보 past>
        {when} {subject} 시험을 봤는데 {70~100}점을 <받 past>. {teacher}께서 <칭찬하 아> <주 hon.past>
        """,
        """
        {teacher}께서는 어려운 내용도 쉽게 <설명하 hon.pres>
        숙제는 {booktopic}에 관한 책을 읽고 {2~5} 쪽짜리 글을 쓰는 것<이 pres>
        우리 반 학생 {21~34}명 가운데 {3~19}명이 {subject2}~을 가장 <좋아하 pres>
        {friend}~은 {subject}~을 잘하지만 {subject2}~은 <어려워하 pres>
        {I}는 {friend}~과 도서관에서 {1~4 한} 시간 동안 <공부하 past>
        수업은 {weekday} {2~6 일} 교시에 <있 pres>
        {teacher}께서 틀린 문제를 다시 풀어 보라고 <말씀하시 past>
        """,
        """
        {teacher}처럼 [좋은|따뜻한] 사람이 되고 <싶 pres>
        다음 시험에서는 더 좋은 점수를 <받 plan>
        {teacher}께 감사하다고 <말씀드리 past>
        """,
    ),
    Scene(
        "office",
        7,
        "haeyo hapnida haera",
        """
        {boss}께서 {weekday} 회의를 {time}~으로 <미루 hon.past>
        {weekday} {time}에 회의가 <있 pres>. {boss}께서도 <참석하 hon.pres>
        {boss}께서 {company}에 보낼 [계약서|견적서|보고서]~을 찾으신다고 <하 past>
        {I}는 {company}에서 {2~15 일} 년째 <일하 고> <있 pres>
        """,
        """
        회의실은 {2~12 일} 층이고 [자료|보고서]~은 {3~40}쪽<이 pres>
        이번 [행사|출장|계약]의 예산은 {300~9500/100 ,}만 원<이 pres>
        {boss}께서는 {city}~으로 출장을 <가 hon.past>
        {fullname} 씨가 발표를 <맡 past>
        {fullname} 씨는 {date}까지 [보고서|번역|설문 조사]~을 끝내겠다고 <하 past>
        점심은 {boss}께서 <사 hon.past>. 모두 {dish}~을 <먹 past>
        [파일|자료]~은 PDF로 만들어 e메일로 <보내 past>
        """,
        """
        {boss}께서 수고했다고 <말씀하시 past>
        회의가 <길어지 아서> 밤 {8~11}시에 <퇴근하 past>
        다음 회의는 {date2}에 <하 plan>
        """,
    ),
    Scene(
        "notice",
        8,
        "hapnida haeyo",
        """
        안녕하세요, 고객님. {company}<이 pres>
        주문하신 {product}~이 {date} 출고되었습니다. {company}<이 pres>
        {brand} {product}~을 구매해 주셔서 <감사하 pres>
        저희 매장은 {date}부터 {2~6}일간 <쉬 pres>
        """,
        """
        주문 번호는 {100000~999999 y}이고 결제 금액은 {price}<이 pres>
        배송은 [보통|평균] {2~5}일쯤 <걸리 pres>
        [교환|반품]~은 받으신 날부터 {7~14}일 안에 <신청하 hon.req>
        [{50000~100000/10000 원} 이상 사시면|회원으로 가입하시면] 배송비를 받지 <않 pres>
        {product} {aspect}에 문제가 <있 으시면> 고객 센터로 <전화하 hon.req>
        상담 시간은 평일 오전 {9~10}시부터 오후 {5~8}시까지<이 pres>
        {month} 한 달 동안 {product}~을 {5~40/5}% 싸게 살 수 <있 hon.pres>
        """,
        """
        이용해 주셔서 <감사하 pres>
        앞으로도 더 좋은 서비스로 <보답하 guess>
        불편을 드려 <죄송하 pres>
        """,
    ),
    Scene(
        "help",
        6,
        "hapnida haeyo",
        """
        {device}~이 갑자기 <꺼지 으면> 먼저 전원을 <확인하 hon.req>
        {app} 앱이 {version} 버전으로 <바뀌 past>
        {app} 앱에서 사진을 <지우 았을> 때에는 이렇게 <하 hon.req>
        {device}~을 처음 쓰실 때에는 {app} 앱부터 <설치하 hon.req>
        """,
        """
        설정에서 [Wi-Fi|블루투스|GPS|알림]~을 껐다가 다시 <켜 hon.req>
        충전은 {1~4 한} 시간쯤 걸리고, 한 번 충전하면 {8~48}시간 쓸 수 <있 pres>
        저장 공간이 {2~16}GB보다 <적 으면> 앱이 느려질 수 <있 pres>
        비밀번호는 [영문자와 숫자를 섞어|숫자만으로] {6~12}자리로 <정하 hon.req>
        [PDF|JPG|MP3|TXT] 파일은 {5~100/5}MB까지 올릴 수 <있 pres>
        {app} 앱 {version}~은 {device}에서도 잘 <작동하 pres>
        """,
        """
        그래도 안 되면 고객 센터 {1500~1899 y}-{1000~9999 y}번으로 <전화하 hon.req>
        [새|다음] 버전은 {month}에 나올 예정<이 pres>
        """,
    ),
    Scene(
        "book",
        6,
        REVIEW,
        """
        {when} 도서관에서 {booktopic}에 관한 책을 <빌리 past>
        {booktopic}~을 다룬 {film}~을 {when} 다 <읽 past>
        {fullname}~이 쓴 {film}~은 {booktopic}에 관한 책<이 pres>
        """,
        """
        [모두|전부] {150~620}쪽인데 글이 <쉽 아서> {2~9 일} 일 만에 다 <읽 past>
        [제 {2~9}장|첫 장|마지막 장]~이 [특히|가장] 인상적<이 past>
        지은이는 {booktopic}~을 {5~30 일} 년 넘게 연구했다고 <하 pres>
        {booktopic}~을 잘 모르는 사람도 어렵지 않게 읽을 수 <있 pres>
        [그림|사진|지도]도 {20~180}장이나 실려 <있 pres>
        책값은 {9000~32000/500 원}인데 조금도 아깝지 <않 past>
        """,
        """
        {booktopic}에 관심이 있는 사람에게 <추천하 pres>
        다음에는 {booktopic2}에 관한 책을 <읽 으려고> <하 pres>
        {friend}에게도 이 책을 빌려 <주 plan>
        """,
    ),
)
