"""Scenes of opinion: films, products, books, restaurants, journeys (marks: see scenes.py)."""

from __future__ import annotations

from kogpt2_gluon.demo.sentences.scenes import REVIEW, Scene

REVIEWS = (
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
        {fullname2}~과 {fullname3}의 호흡이 <좋 past>
        줄거리는 <단순하 았지만> [장면 하나하나|대사 한마디 한마디]~이 마음에 <남 past>
        {filmsound}~이 이야기와 [잘|무척 잘] <어울리 past>
        상영 시간이 {95~165}분인데 [조금도|전혀] <지루하 지> <않 past>
        [초반|처음]에는 조금 <느리 았지만> [중반|후반]부터 전개가 [무척|눈에 띄게] <빨라지 past>
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
        [배경 음악|효과음|음악]~은 [지나치게|너무] <시끄럽 past>
        상영 시간이 {130~180}분이나 <되 아서> 보기에 <힘들 past>
        웃기려는 장면이 [많았|자주 나왔]지만 [한 번도|거의] 웃지 <않 past>
        같은 감독의 {film2}~이 [훨씬|차라리] <낫 past>
        {filmplace}의 풍경은 <아름답 았지만> 이야기와 잘 어울리지 <않 past>
        """,
        """
        별점은 5점 만점에 {1.0~2.5}점<이 pres>
        [그래도|그나마] [조명|의상|미술]~은 <괜찮 past>
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
        {product}~을 [한 달|두 달|석 달|반년]째 <{usev} 고> <있 pres>
        친구의 추천으로 {brand} {product}~을 <주문하 past>
        쓰던 {product}~이 [낡아서|오래되어서] {brand}~으로 <바꾸 past>
        """,
        """
        주문하고 {2~6}일 만에 받았는데 포장이 <꼼꼼하 past>
        {aspect}~이 [정말|아주|생각보다|기대보다] <좋 past>
        {use} <{usev} 는데> {aspect}~과 {aspect2} 모두 <만족스럽 past>
        [처음에는 {price}~이 비싸다고 생각했지만|가격은 {price}인데] 써 보니 돈이 아깝지 <않 past>
        {aspect2}도 [전에 쓰던 것보다|다른 제품보다] [훨씬|조금] <낫 past>
        [색상|디자인]~이 사진과 [똑같아서|거의 같아서] 마음에 <들 past>
        궁금한 점을 문의했더니 {5~50}분 만에 [친절한|자세한] 답이 <오 past>
        [부모님|동생|친구]도 써 보고 마음에 <들 아> <하 past>
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
        산 지 [일주일|보름|사흘|한 달] 만에 {product}에 문제가 <생기 past>
        {brand} {product}~을 샀는데 {aspect}~이 <실망스럽 past>
        {price}~을 주고 산 {product}인데 기대에 [크게|많이] 못 <미치 past>
        {product}~을 [교환했|바꿨]는데 [또|다시] 같은 문제가 <생기 past>
        """,
        """
        배송이 {6~15}일이나 걸려서 [무척|너무] <답답하 past>
        {aspect}~은 <괜찮 았지만> {aspect2}~이 [많이|너무] <아쉽 past>
        {use} <{usev} 기에는> [너무|조금] <불편하 past>
        사진으로 볼 때보다 [훨씬|조금] <촌스럽 past>
        상자를 열어 보니 [한쪽 모서리가 깨져|설명서가 빠져|먼지가 묻어] <있 past>
        고객 센터에 {3~9 한} 번이나 전화했지만 [통화가 되지 <않 past>|기다리라는 말만 <듣 past>]
        반품을 신청하니 배송비 {3000~9000/500 원}~을 내라고 <하 past>
        같은 값이면 {brand2}~이 [훨씬|차라리] <낫 past>
        """,
        """
        [결국|할 수 없이] <환불하 past>
        다시는 이 회사 제품을 사지 <않 plan>
        별점은 {1~2}점도 <아깝 pres>
        {aspect2}만 나아진다면 다시 사고 <싶 pres>
        """,
    ),
    Scene(
        "travel",
        10,
        REVIEW,
        """
        {when} {city}~으로 여행을 <다녀오 past>
        {friend}~과 함께 [1박 2일|2박 3일|3박 4일|4박 5일] 일정으로 {city}에 <가 past>
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
        "restaurant",
        8,
        REVIEW,
        """
        {when} {district}에 있는 식당에서 {dish}~을 <먹 past>
        {friend}~이 추천한 {dish} 집에 <다녀오 past>
        회사 근처에 {dish}~을 잘하는 식당이 새로 <생기 past>
        """,
        """
        {dish} 한 {unit}에 {7000~16000/500 원}<이 past>
        {dish}~은 [아주|생각보다|소문대로] <{taste} past>
        {main}~이 [듬뿍|넉넉히|생각보다 많이] 들어 <있 past>
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
        "book",
        6,
        REVIEW,
        """
        {when} 도서관에서 {booktopic}에 관한 책을 <빌리 past>
        {booktopic}~을 다룬 {film}~을 {when} 다 <읽 past>
        {fullname}~이 쓴 {film}~은 {booktopic}에 관한 책<이 pres>
        """,
        """
        [모두|전부] {150~620}쪽인데 글이 <쉽 아서> [이틀|사흘|나흘|닷새|일주일] 만에 다 <읽 past>
        [제 {2~9}장|첫 장|마지막 장]~이 [특히|가장] 인상적<이 past>
        지은이는 {booktopic}~을 {10~30/5 일} 년 넘게 연구했다고 <하 pres>
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
